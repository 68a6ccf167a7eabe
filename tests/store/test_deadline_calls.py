"""Drivers' calls with a deadline for each caller, and batches of keys."""

import pytest
import trio

from server.store.batcher import Batcher
from server.store.catalogue import StoreUnavailable
from server.store.deadline_calls import DeadlineCalls


@pytest.fixture
async def calls(nursery) -> DeadlineCalls:
    made = DeadlineCalls(2)
    await nursery.start(made.run)
    return made


async def test_result_and_error_come_back(autojump_clock, calls):
    """The caller gets the driver's result or error."""

    async def give():
        await trio.sleep(1)
        return 42

    async def fail():
        raise StoreUnavailable("no")

    assert await calls.call(2, give) == 42
    with pytest.raises(StoreUnavailable, match="no"):
        await calls.call(2, fail)


async def test_caller_gives_up_in_time_and_the_call_ends_by_itself(autojump_clock, calls):
    """A driver that ignores deadlines does not delay its caller."""
    ended = trio.Event()

    async def stubborn():
        with trio.CancelScope(shield=True):
            await trio.sleep(10)
        ended.set()

    start = trio.current_time()
    with pytest.raises(StoreUnavailable, match="no answer in 1 s"):
        await calls.call(1, stubborn)
    assert trio.current_time() - start == 1
    with trio.move_on_after(2):
        await calls.call(5, stubborn)
    assert trio.current_time() - start == 3
    assert calls.in_progress == 2
    with pytest.raises(StoreUnavailable, match="too many"):
        await calls.call(1, stubborn)
    assert trio.current_time() - start == 3
    await ended.wait()
    await trio.sleep(5)
    assert calls.in_progress == 0


async def test_batches_gather_and_are_bounded(autojump_clock, nursery):
    """Keys within the window form a batch, a large batch is split, and two batches run at a time."""
    batches: list[list[str]] = []

    async def work(keys):
        batches.append(list(keys))
        await trio.sleep(1)

    batcher = Batcher(work, lambda _: None, window=0.5, max_keys=3, max_running=2)
    nursery.start_soon(batcher.run)
    batcher.add("ab")
    await trio.sleep(0.4)
    batcher.add("bcdefgh")
    await trio.sleep(0.9)
    assert batches == [["a", "b", "c"], ["d", "e", "f"]]
    await trio.sleep(1)
    assert batches[2:] == [["g", "h"]]


async def test_batch_that_fails_unexpectedly_is_told_and_others_go_on(autojump_clock, nursery):
    """An unexpected error is reported and does not end the batcher."""
    failed: list[str] = []

    async def work(keys):
        if "bad" in keys:
            raise ZeroDivisionError

    batcher = Batcher(work, failed.extend, window=0, max_keys=3, max_running=1)
    nursery.start_soon(batcher.run)
    batcher.add(["bad"])
    await trio.sleep(1)
    batcher.add(["good"])
    await trio.sleep(1)
    assert failed == ["bad"]
