"""The gateway's small parts by themselves, on a clock that jumps."""

from collections import Counter
from random import Random

import pytest
import structlog
import trio

from server.gateway.deadlines import DeadlineWheel
from server.gateway.lifecycle import TRANSITIONS, Event, State
from server.gateway.limits import BAD_COMMANDS_IN_A_ROW, CommandLimit, TokenBucket
from server.gateway.pool import Pool
from server.gateway.refusals import Refusal, Refused
from server.gateway.sampling import Sampler

NEVER = float("inf")


class Item:
    """Notes when it was called; `again`: the seconds after which it sets a new deadline."""

    def __init__(self, wheel: DeadlineWheel, again: float = NEVER) -> None:
        self.deadline = NEVER
        self.calls: list[float] = []
        self._wheel = wheel
        self._again = again

    def on_deadline(self) -> None:
        self.calls.append(trio.current_time())
        if self._again < NEVER:
            self._wheel.set(self, trio.current_time() + self._again)


@pytest.fixture
async def wheel(nursery: trio.Nursery) -> DeadlineWheel:
    """A running wheel."""
    wheel = DeadlineWheel()
    nursery.start_soon(wheel.run)
    return wheel


async def test_bucket_gives_its_burst_then_its_rate(autojump_clock):
    """A full bucket is emptied at once, then refills at the rate, never beyond the burst."""
    bucket = TokenBucket(rate=2, burst=3)
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    await trio.sleep(0.49)
    assert not bucket.take()
    await trio.sleep(0.02)
    assert [bucket.take() for _ in range(2)] == [True, False]
    await trio.sleep(3600)
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]


async def test_bucket_s_rate_holds_over_time(autojump_clock):
    """Constant takers get the rate, and the burst once."""
    bucket = TokenBucket(rate=5, burst=10)
    taken = 0
    for _ in range(10_000):
        taken += bucket.take()
        await trio.sleep(0.01)
    assert abs(taken - (10 + 5 * 100)) <= 1


async def test_command_limit_counts_bad_ones_in_a_row(autojump_clock):
    """Only bad commands in an unbroken row are too many."""
    limit = CommandLimit(rate=50)
    for _ in range(3):
        assert not any(limit.too_many_bad(good=False) for _ in range(BAD_COMMANDS_IN_A_ROW))
        assert not limit.too_many_bad(good=True)
    row = [limit.too_many_bad(good=False) for _ in range(BAD_COMMANDS_IN_A_ROW + 1)]
    assert row == [False] * BAD_COMMANDS_IN_A_ROW + [True]


async def test_flooding_is_forgiven_with_time(autojump_clock):
    """A client that is a little too fast is refused for ever. One far too fast is flooding soon."""
    limit = CommandLimit(rate=50)
    for _ in range(6000):
        assert not (not limit.allows() and limit.is_flooded())
        await trio.sleep(1 / 58)
    while not limit.is_flooded():
        pass


async def test_command_counts_as_what_it_is_about(autojump_clock):
    """A command counts once more for each fifty symbols; a second later there is always room."""
    limit = CommandLimit(rate=50)
    for _ in range(10):
        assert limit.allows()
        limit.charge(459)
    assert not limit.allows()
    limit.charge(1_000_000)
    await trio.sleep(1.1)
    assert limit.allows()


async def test_item_is_called_within_a_second(autojump_clock, wheel):
    """An item is called once, not before its deadline and at most a second later."""
    await trio.sleep(0.3)
    items = [(Item(wheel), trio.current_time() + step / 7) for step in range(100)]
    for item, deadline in items:
        wheel.set(item, deadline)
    await trio.sleep(20)
    for item, deadline in items:
        (called,) = item.calls
        assert deadline <= called <= deadline + 1
        assert item.deadline == NEVER


async def test_deadline_is_replaced_or_taken_away(autojump_clock, wheel):
    """Only the last deadline counts. A cleared item is not called, and nothing is kept of it."""
    earlier, later, cleared = Item(wheel), Item(wheel), Item(wheel)
    start = trio.current_time()
    for item in (earlier, later, cleared):
        wheel.set(item, start + 5)
    wheel.set(earlier, start + 2)
    wheel.set(later, start + 9)
    wheel.clear(cleared)
    wheel.clear(cleared)
    await trio.sleep(12)
    assert [len(item.calls) for item in (earlier, later, cleared)] == [1, 1, 0]
    assert start + 2 <= earlier.calls[0] <= start + 3
    assert start + 9 <= later.calls[0] <= start + 10
    assert not wheel._slots


async def test_past_deadline_is_due_at_once(autojump_clock, wheel):
    """A deadline in the past is met within a second as well."""
    await trio.sleep(100.5)
    item = Item(wheel)
    wheel.set(item, trio.current_time() - 50)
    await trio.sleep(1)
    assert len(item.calls) == 1


async def test_item_may_want_to_be_called_again(autojump_clock, wheel):
    """An item may set itself a new deadline when it is called."""
    item = Item(wheel, again=3)
    wheel.set(item, trio.current_time() + 3)
    await trio.sleep(31)
    assert 9 <= len(item.calls) <= 10


async def test_deadlines_of_a_loop_that_stood_still_are_met_at_once(autojump_clock, wheel):
    """All items whose time came meanwhile are called, once each."""
    items = [Item(wheel) for _ in range(5)]
    start = trio.current_time()
    for number, item in enumerate(items):
        wheel.set(item, start + 1 + number)
    await trio.testing.wait_all_tasks_blocked()
    autojump_clock.jump(30)
    await trio.sleep(1)
    assert [len(item.calls) for item in items] == [1] * 5


async def test_sampler_logs_one_line_a_second_and_key(autojump_clock):
    """The first line of a burst is logged. The next one has the number of lines left out."""
    sampler = Sampler("connection refused")
    with structlog.testing.capture_logs() as lines:
        for _ in range(1000):
            sampler.log("unauthorized", "no")
        sampler.log("not_found", "nothing here")
        await trio.sleep(1.01)
        sampler.log("unauthorized", "no")
        await trio.sleep(1.01)
        sampler.log("unauthorized", "no")
    assert [(line["reason"], line["left_out"]) for line in lines] == [
        ("unauthorized", 0),
        ("not_found", 0),
        ("unauthorized", 999),
        ("unauthorized", 0),
    ]
    assert {line["event"] for line in lines} == {"connection refused"}


def test_states_are_counted_exactly():
    """After a million random events every state's count is that of the connections in it."""
    random = Random(3)
    pool = Pool(max_connections=1, max_per_user=1)
    possible = {state: [e for s, e in TRANSITIONS if s is state] for state in State}
    connections: list[State] = []
    for number in range(100_000):
        if not connections or (len(connections) < 300 and random.random() < 0.3):
            pool.enter()
            connections.append(State.CONNECTING)
            continue
        index = int(random.random() * len(connections))
        events = possible[connections[index]]
        state = pool.move(connections[index], events[number % len(events)])
        if state is State.CLOSED:
            connections[index] = connections[-1]
            connections.pop()
        else:
            connections[index] = state
    assert +pool.states == Counter(connections)


def test_every_state_can_end_but_the_last():
    """Nothing leads out of closed, and everything else can lead there."""
    for state in State:
        assert ((state, Event.ENDED) in TRANSITIONS) is (state is not State.CLOSED)
        assert state is not State.CLOSED or state not in {s for s, _ in TRANSITIONS}


def test_pool_counts_exactly():
    """After a hundred thousand random opens and closes, the free places are exactly those not taken."""
    random = Random(2)
    pool = Pool(max_connections=50, max_per_user=7)
    users = [f"user{number}" for number in range(12)]
    taken: list[str] = []
    refused: Counter[Refused] = Counter()
    for number in range(100_000):
        if taken and random.random() < 0.48:
            user = taken.pop(int(random.random() * len(taken)))
            pool.release_for(user)
            pool.release()
        else:
            user = users[number % len(users)]
            refusal = refused_by(pool, user)
            assert (refusal is Refused.AT_CAPACITY) is (len(taken) == 50)
            assert (refusal is Refused.TOO_MANY_CONNECTIONS) is (
                len(taken) < 50 and taken.count(user) == 7
            )
            if refusal:
                refused[refusal] += 1
            else:
                taken.append(user)
        if number % 1000 == 0:
            assert pool.places == len(taken)
            assert pool._users == Counter(taken)
    assert len(refused) == 2


def refused_by(pool: Pool, user: str) -> Refused | None:
    """Take a place for `user` as the gateway does; return the refusal, if any."""
    try:
        pool.reserve()
    except Refusal as refusal:
        return refusal.refused
    try:
        pool.reserve_for(user)
    except Refusal as refusal:
        pool.release()
        return refusal.refused
    return None
