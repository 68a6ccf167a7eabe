"""One beat of one connection, at exactly the moments at which the decisions change."""

from math import inf
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from server.gateway import heartbeat
from server.gateway.auth import Identity
from server.gateway.closing import Close
from server.gateway.heartbeat import Heartbeat
from server.gateway.lifecycle import State
from server.gateway.pool import Pool

INTERVAL = 20.0
IDLE = 60.0
EXPIRES = 10_000.0
"""The token's end in Unix time, which is trio's time here."""


class Session:
    """A connection that notes what is done to it. `moved`: when its symbol's price moved last."""

    def __init__(self, *, moved: float = -inf, everything: bool = False) -> None:
        self.identity = Identity("ann", None, EXPIRES)
        self.state = State.ACTIVE
        self.closing = False
        self.deadline = inf
        self.beat_at = 0.0
        self.unanswered = self.quiet_beats = 0
        self.heard = False
        self.outbox = SimpleNamespace(blocked=False, sock=None)
        topics = [SimpleNamespace(moved_at=moved)]
        self.subscriptions = SimpleNamespace(everything=everything, topics=topics, bars=())
        self.done: list[object] = []

    def ping(self) -> None:
        self.done.append("ping")

    def close(self, reason: Close) -> None:
        self.done.append(reason)

    def drop(self, reason: Close) -> None:
        self.done.append(("drop", reason))


class Beats:
    """A heartbeat on a clock that jumps; `deadlines` are those it sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *moved: float) -> None:
        clock = SimpleNamespace(time=trio.current_time)
        monkeypatch.setattr(heartbeat, "time", clock)
        self.deadlines: list[float] = []
        wheel: Any = SimpleNamespace(set=lambda _, deadline: self.deadlines.append(deadline))
        topics: Any = {str(at): SimpleNamespace(moved_at=at) for at in moved}
        self.pool = Pool(10, 10)
        self.heartbeat = Heartbeat(self.pool, wheel, topics, INTERVAL, IDLE)

    def beat(self, session: Session) -> list[object]:
        """Return what one beat does."""
        session.done.clear()
        self.heartbeat.beat(session)  # type: ignore[arg-type]  # it has what a beat uses
        return list(session.done)


async def test_client_is_pinged_at_its_beat_and_not_before(autojump_clock, monkeypatch):
    """The wheel may wake it earlier, for a token's end that has moved since."""
    beats, session = Beats(monkeypatch), Session()
    session.beat_at = 100.0
    await trio.sleep_until(99.0)
    assert beats.beat(session) == []
    assert beats.deadlines == [100.0]
    await trio.sleep_until(100.0)
    assert beats.beat(session) == ["ping"]
    assert beats.deadlines == [100.0, 120.0]


async def test_token_ends_the_connection_at_its_end(autojump_clock, monkeypatch):
    """Not a moment later; the last beat before it is moved to it."""
    beats, session = Beats(monkeypatch), Session()
    await trio.sleep_until(EXPIRES - 1)
    assert beats.beat(session) == ["ping"]
    assert beats.deadlines == [EXPIRES]
    await trio.sleep_until(EXPIRES)
    assert beats.beat(session) == [Close.TOKEN_EXPIRED]


@pytest.mark.parametrize("after", [0.0, 20.0])
async def test_first_beat_may_come_at_once(autojump_clock, monkeypatch, after):
    """At any moment of an interval, so that clients that came together are not pinged together."""
    uniform = {0.0: lambda low, high: low, 20.0: lambda low, high: high}[after]
    monkeypatch.setattr(heartbeat, "random", SimpleNamespace(uniform=uniform))
    beats, session = Beats(monkeypatch), Session()
    beats.heartbeat.start(session)  # type: ignore[arg-type]  # it has what a beat uses
    assert beats.deadlines == [trio.current_time() + after]


@pytest.mark.parametrize(
    ("silent", "dropped"), [(0.0, False), (1.0, False), (40.0, False), (40.001, True)]
)
async def test_full_socket_s_peer_may_be_silent_for_two_beats(
    autojump_clock, monkeypatch, silent, dropped
):
    """No ping would reach it, so its kernel's answers tell whether it is there."""
    monkeypatch.setattr(heartbeat, "unacknowledged_for", lambda _: silent)
    beats, session = Beats(monkeypatch), Session()
    session.outbox.blocked, session.unanswered = True, 1
    assert beats.beat(session) == ([("drop", Close.NO_ANSWER)] if dropped else [])
    assert session.unanswered == 0
    assert beats.deadlines == ([] if dropped else [20.0])


@pytest.mark.parametrize(("age", "traffic"), [(0.0, True), (20.9, True), (21.0, False)])
@pytest.mark.parametrize("everything", [True, False])
async def test_prices_since_the_last_beat_are_traffic(
    autojump_clock, monkeypatch, age, traffic, everything
):
    """Those of the client's own symbols. The beat may come a second late."""
    await trio.sleep_until(1000.0)
    own, others = 1000.0 - age, 1000.0
    if everything:
        beats, session = Beats(monkeypatch, own), Session(everything=True)
    else:
        beats, session = Beats(monkeypatch, own, others), Session(moved=own)
    beats.pool.enter()
    beats.pool.states[State.ACTIVE] += 1
    beats.beat(session)
    assert session.state is (State.ACTIVE if traffic else State.IDLE)


async def test_third_quiet_beat_is_the_last(autojump_clock, monkeypatch):
    """A minute's silence is three beats of twenty seconds. Anything heard begins it anew."""
    beats, session = Beats(monkeypatch), Session()
    await trio.sleep_until(1000.0)
    beats.pool.states[State.ACTIVE] += 1
    for heard in (False, False, True, False, False):
        session.heard = heard
        assert beats.beat(session) == ["ping"]
        session.beat_at = 0.0
    assert beats.beat(session) == [Close.IDLE]
