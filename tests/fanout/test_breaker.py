"""The circuit breaker's table, and what it does to a blocked outbox on a clock that jumps."""

import trio

from server.fanout.breaker import MAX_REOPENINGS, TRIALS, Breaker, BreakerPolicy, BreakerState
from server.fanout.hub import Hub
from server.fanout.topic import Topic
from tests.fanout.peer import Peer, instruments, publish

POLICY = BreakerPolicy(threshold=3, recovery=30.0, stall_timeout=2.0)


def opened() -> Breaker:
    breaker = Breaker(POLICY)
    for _ in range(POLICY.threshold):
        assert breaker.state is BreakerState.CLOSED
        breaker.stalled()
    assert breaker.state is BreakerState.OPEN
    return breaker


def test_only_stalls_in_a_row_open_it():
    """A write that makes progress, or a peer that takes some bytes, starts the count anew."""
    breaker = Breaker(POLICY)
    for _ in range(20):
        breaker.stalled()
        breaker.stalled()
        breaker.went_out(everything=False)
        breaker.stalled()
        breaker.stalled()
        breaker.trickled()
    assert breaker.state is BreakerState.CLOSED


def test_trials_close_it():
    """A half-open breaker takes three writes to close, or fewer if nothing is left to write."""
    for writes, everything in ((TRIALS, False), (1, True)):
        breaker = opened()
        breaker.recovered()
        for _ in range(writes):
            assert breaker.state is BreakerState.HALF_OPEN
            breaker.went_out(everything=everything)
        assert breaker.state is BreakerState.CLOSED


def test_the_third_reopening_is_the_last():
    """A stall while half-open reopens it, three times at most."""
    breaker = opened()
    for number in range(1, MAX_REOPENINGS + 1):
        breaker.recovered()
        breaker.went_out(everything=False)
        breaker.stalled()
        expected = BreakerState.GIVEN_UP if number == MAX_REOPENINGS else BreakerState.OPEN
        assert breaker.state is expected
    breaker.stalled()
    assert breaker.state is BreakerState.GIVEN_UP


class Owner:
    """Notes what the breaker of its outbox tells it."""

    def __init__(self) -> None:
        self.states: list[tuple[float, BreakerState]] = []

    def on_breaker(self, state: BreakerState) -> None:
        self.states.append((trio.current_time(), state))

    def on_delisted(self, topic: Topic) -> None:
        raise AssertionError("nothing is delisted here")

    def on_renamed(self, old: Topic, new: Topic) -> None:
        raise AssertionError("nothing is renamed here")


async def blocked_peer(hub: Hub) -> tuple[Peer, Owner]:
    """Return a client whose socket is full, and an owner that notes its breaker's states."""
    peer, owner = Peer(hub), Owner()
    peer.outbox.owner = owner
    peer.subscribe("AAPL")
    price = 100.0
    while not peer.outbox.blocked:
        price += 0.01
        publish(hub, "AAPL", price)
        peer.outbox.flush()
    return peer, owner


async def test_open_breaker_sends_nothing(autojump_clock, nursery):
    """An open breaker waits for its recovery time even if the socket has room. Then the rest is
    sent, and the current quote.
    """
    hub = Hub(instruments("AAPL"), breaker=POLICY)
    await nursery.start(hub.run)
    peer, owner = await blocked_peer(hub)
    await trio.sleep(7)
    assert [state for _, state in owner.states] == [BreakerState.OPEN]
    assert hub.breakers[BreakerState.OPEN] == 1
    peer.receive(1 << 20)
    await trio.sleep(20)
    publish(hub, "AAPL", 222.0)
    assert peer.receive() == 0
    await trio.sleep(10)
    await peer.read()
    assert peer.document["quotes"] == peer.truth()
    assert [state for _, state in owner.states] == [
        BreakerState.OPEN,
        BreakerState.HALF_OPEN,
        BreakerState.CLOSED,
    ]
    assert not any(hub.breakers.values())
    publish(hub, "AAPL", 223.0)
    await peer.read()
    assert peer.messages[-1]["operations"][0]["op"] == "replace"
    peer.close()


async def test_timing_is_the_policy_s(autojump_clock, nursery):
    """Stalls and recovery take the policy's times, and in the end the owner is asked to end."""
    hub = Hub(instruments("AAPL"), breaker=POLICY)
    await nursery.start(hub.run)
    start = trio.current_time()
    peer, owner = await blocked_peer(hub)
    await trio.sleep(200)
    assert [(round(at - start), state.value) for at, state in owner.states] == [
        (6, "open"),
        (36, "half_open"),
        (38, "open"),
        (68, "half_open"),
        (70, "open"),
        (100, "half_open"),
        (102, "given_up"),
    ]
    assert hub.breakers[BreakerState.GIVEN_UP] == 1
    peer.close()
    await trio.testing.wait_all_tasks_blocked()
    assert not any(hub.breakers.values())


async def test_client_that_trickles_is_not_stalled(autojump_clock, nursery):
    """A slow client that takes a little every second stays connected."""
    hub = Hub(instruments("AAPL"), breaker=POLICY)
    await nursery.start(hub.run)
    peer, owner = await blocked_peer(hub)
    for _ in range(60):
        peer.receive(300)
        await trio.sleep(1)
        publish(hub, "AAPL", 100 + trio.current_time() % 50)
    assert not owner.states
    peer.close()


async def test_end_of_a_connection_ends_its_writer(autojump_clock, nursery):
    """No task and no count is left of a closed connection, whatever its breaker's state."""
    hub = Hub(instruments("AAPL"), breaker=POLICY)
    await nursery.start(hub.run)
    await trio.testing.wait_all_tasks_blocked()
    tasks = trio.lowlevel.current_statistics().tasks_living
    for wait in (0, 1, 5.9, 6.1, 20, 37, 38.5):
        peer, _ = await blocked_peer(hub)
        await trio.sleep(wait)
        peer.close()
        await trio.testing.wait_all_tasks_blocked()
        assert not any(hub.breakers.values())
    # The one that may be left is AAPL's topic.
    assert trio.lowlevel.current_statistics().tasks_living <= tasks + 1
