"""Tasks pass the pacer a few at a time."""

from itertools import pairwise

import trio
from trio.testing import wait_all_tasks_blocked

from server.gateway.handshake_pacer import HandshakePacer


async def test_few_pass_at_a_time_first_come_first_served():
    """Between two groups other tasks run."""
    passed: list[int] = []
    counts = [0]

    async def enter(number: int) -> None:
        await pacer.enter()
        passed.append(number)

    async with trio.open_nursery() as nursery:
        pacer = HandshakePacer(2)
        for number in range(10):
            nursery.start_soon(enter, number)
            await wait_all_tasks_blocked()
        nursery.start_soon(pacer.run)
        while len(passed) < 10:
            await trio.lowlevel.checkpoint()
            counts.append(len(passed))
        nursery.cancel_scope.cancel()
    # Between two looks lie at most two groups: the order of tasks within a pass is random.
    assert max(after - before for before, after in pairwise(counts)) <= 4
    groups = [sorted(passed[start : start + 2]) for start in range(0, 10, 2)]
    assert groups == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]


async def test_who_gives_up_waiting_keeps_nobody_from_passing():
    """A task that is cancelled in the queue leaves it."""
    pacer = HandshakePacer(1)
    with trio.move_on_after(0) as impatience:
        await pacer.enter()
    assert impatience.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pacer.run)
        with trio.fail_after(5):
            await pacer.enter()
        nursery.cancel_scope.cancel()
