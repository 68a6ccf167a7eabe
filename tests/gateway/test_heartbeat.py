"""Clients that fall silent are pinged, counted as idle and sent away, on a clock that jumps."""

import time
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from server.fanout.breaker import BreakerState
from server.fanout.hub import Hub
from server.gateway import heartbeat
from server.gateway.closing import Close
from server.gateway.lifecycle import State
from server.ops.health import _errors
from server.quotes.instrument import Instrument
from tests.frames import take_frame
from tests.gateway.harness import SessionHarness
from tests.gateway.wire import CLOSE, PING, PONG, TEXT, frame

Open = Callable[..., SessionHarness]

BEAT = 20.0


@pytest.fixture
async def connect(nursery: trio.Nursery) -> AsyncIterator[Open]:
    """Opens a session that runs, on a gateway of its own with its deadlines."""
    harnesses: list[SessionHarness] = []
    hub = Hub([Instrument(symbol="AAPL", name="Apple", base_price=100.0)])
    await nursery.start(hub.run)

    def connect(*symbols: str, **options: Any) -> SessionHarness:
        harness = SessionHarness(hub, ping_interval=BEAT, **options)
        harnesses.append(harness)
        harness.begin(*symbols)
        nursery.start_soon(harness.gateway.services.deadlines.run)
        nursery.start_soon(harness.gateway.services.poller.run)
        nursery.start_soon(harness.run)
        return harness

    yield connect
    for harness in harnesses:
        harness.end()


def errors(harness: SessionHarness) -> tuple[int, int]:
    """Return what `/health` knows: the number of failed connections, and of all that ended."""
    return _errors(harness.gateway)


class Reader:
    """Notes the frames and when they came, and answers pings and close frames if asked to."""

    def __init__(
        self, harness: SessionHarness, *, answers: bool = True, echoes: bool = True
    ) -> None:
        self.frames: list[tuple[float, int, bytes]] = []
        self.over = trio.Event()
        self._client = harness.client
        self._answers, self._echoes = answers, echoes

    async def run(self) -> None:
        received = b""
        while True:
            await trio.lowlevel.wait_readable(self._client)
            if not (data := self._client.recv(65536)):
                break
            received += data
            while taken := take_frame(received):
                first, payload, received = taken
                self.frames.append((trio.current_time(), first & 0xF, payload))
                if first & 0xF == PING and self._answers:
                    self._client.send(frame(PONG, payload))
                if first & 0xF == CLOSE and self._echoes:
                    self._client.send(frame(CLOSE, payload))
        self.over.set()

    def times(self, opcode: int) -> list[float]:
        return [at for at, kind, _ in self.frames if kind == opcode]

    @property
    def close_code(self) -> int | None:
        return next((int.from_bytes(p[:2]) for _, kind, p in self.frames if kind == CLOSE), None)


async def test_client_that_answers_stays(autojump_clock, connect, nursery):
    """A client that answers gets a ping every interval, and nothing else happens."""
    harness = connect("AAPL")
    reader = Reader(harness)
    nursery.start_soon(reader.run)
    await trio.sleep(10 * BEAT)
    pings = reader.times(PING)
    assert 9 <= len(pings) <= 11
    assert all(BEAT - 1 <= b - a <= BEAT + 1 for a, b in pairwise(pings))
    assert reader.close_code is None


async def test_two_unanswered_pings_are_4408(autojump_clock, connect, nursery):
    """A client that does not answer is closed at the third heartbeat, and gone two seconds later."""
    harness = connect("AAPL")
    reader = Reader(harness, answers=False, echoes=False)
    nursery.start_soon(reader.run)
    with trio.fail_after(4 * BEAT):
        await reader.over.wait()
    assert reader.close_code == 4408
    first, second = reader.times(PING)
    (closed,) = reader.times(CLOSE)
    assert 2 * BEAT - 1 <= closed - first <= 2 * BEAT + 2
    assert second < closed
    assert harness.session.close_code == 4408
    assert errors(harness) == (0, 1)
    assert harness.gateway.pool.lost == 1


async def test_one_answer_in_two_is_enough(autojump_clock, connect, nursery):
    """Anything that a client sends counts as an answer."""
    harness = connect("AAPL")
    reader = Reader(harness, answers=False)
    nursery.start_soon(reader.run)
    for _ in range(6):
        await trio.sleep(1.5 * BEAT)
        harness.client.send(frame(TEXT, b'{"action":"ping"}'))
    assert reader.close_code is None


async def test_listener_costs_no_decoder(autojump_clock, connect, nursery):
    """A client that only listens and answers pings has no decoder for commands."""
    harness = connect("AAPL")
    nursery.start_soon(Reader(harness).run)
    # Between two ticks of the wheel.
    await trio.sleep(2.5 * BEAT + 0.5)
    assert not harness.session.unanswered
    assert harness.session._protocol is None
    harness.client.send(frame(TEXT, b'{"action":"ping"}'))
    await trio.testing.wait_all_tasks_blocked()
    assert harness.session._protocol is not None


async def test_idle_client_is_4408(autojump_clock, connect, nursery):
    """Pongs alone do not keep a connection: without data in either way it ends."""
    harness = connect("AAPL", idle_timeout=3 * BEAT)
    states = harness.gateway.pool.states
    reader = Reader(harness)
    nursery.start_soon(reader.run)
    assert states[State.ACTIVE] == 1
    await trio.sleep(2.2 * BEAT)
    assert (states[State.ACTIVE], states[State.IDLE]) == (0, 1)
    with trio.fail_after(3 * BEAT):
        await reader.over.wait()
    assert reader.close_code == 4408
    assert trio.current_time() >= 3 * BEAT
    assert errors(harness) == (0, 1)


@pytest.mark.parametrize("everything", [False, True])
async def test_client_with_prices_is_not_idle(autojump_clock, connect, nursery, everything):
    """One price in the idle time is enough. Without prices it is idle, with the next one active."""
    harness = connect("*" if everything else "AAPL", idle_timeout=5 * BEAT)
    states = harness.gateway.pool.states
    reader = Reader(harness)
    nursery.start_soon(reader.run)
    for number in range(5):
        await trio.sleep(2.2 * BEAT)
        assert states[State.IDLE] == 1
        harness.trade("AAPL", 101.0 + number)
        seen = set[State]()
        for _ in range(int(BEAT) + 2):
            await trio.sleep(1)
            seen.add(harness.session.state)
        assert State.ACTIVE in seen
    assert reader.close_code is None


class WallClock:
    """Goes on with trio's clock, as the real one does, and can be stepped as by an operator or NTP."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.step = time.time() - trio.current_time()
        clock = SimpleNamespace(time=lambda: trio.current_time() + self.step)
        monkeypatch.setattr(heartbeat, "time", clock)


@pytest.fixture
def wall_clock(monkeypatch) -> Callable[[], WallClock]:
    """Replaces the wall clock. To be called inside trio, before a session is opened."""
    return lambda: WallClock(monkeypatch)


def watch_clock(harness: SessionHarness, nursery: trio.Nursery) -> Reader:
    """Watch the clock as the gateway does. The session's token ends after 600 seconds."""
    nursery.start_soon(
        harness.gateway.services.heartbeat.watch_clock, harness.gateway.pool.sessions
    )
    reader = Reader(harness)
    nursery.start_soon(reader.run)
    return reader


async def test_token_ends_by_wall_time(autojump_clock, wall_clock, connect, nursery):
    """Without any step, a connection ends within two seconds after its token."""
    wall_clock()
    reader = watch_clock(connect("AAPL"), nursery)
    await trio.sleep(599)
    assert reader.close_code is None
    await trio.sleep(3)
    assert reader.close_code == 4401


async def test_token_ends_when_the_clock_jumps_past_its_end(
    autojump_clock, wall_clock, connect, nursery
):
    """It ends within two seconds after the step, though the next heartbeat may be twenty away."""
    clock = wall_clock()
    reader = watch_clock(connect("AAPL"), nursery)
    await trio.sleep(50.5)
    clock.step += 500
    await trio.sleep(3)
    assert reader.close_code is None
    clock.step += 100
    await trio.sleep(2.1)
    assert reader.close_code == 4401


async def test_token_ends_at_a_beat_at_the_latest(autojump_clock, wall_clock, connect, nursery):
    """It ends with the next beat if nobody watches the clock."""
    clock = wall_clock()
    reader = Reader(connect("AAPL"))
    nursery.start_soon(reader.run)
    await trio.sleep(50.5)
    clock.step += 3600
    await trio.sleep(BEAT + 1)
    assert reader.close_code == 4401


async def test_token_does_not_end_early_when_the_clock_is_set_back(
    autojump_clock, wall_clock, connect, nursery
):
    """It lasts until its end by the wall clock, and its client is not pinged more often."""
    clock = wall_clock()
    reader = watch_clock(connect("AAPL"), nursery)
    await trio.sleep(590.5)
    clock.step -= 300
    await trio.sleep(300)
    assert reader.close_code is None
    assert all(BEAT - 1 <= b - a <= BEAT + 1 for a, b in pairwise(reader.times(PING)))
    await trio.sleep(12)
    assert reader.close_code == 4401


async def test_wake_up_that_is_too_early_is_no_beat(autojump_clock, wall_clock, connect, nursery):
    """A session that is woken at the old end of its token is not pinged for it."""
    clock = wall_clock()
    reader = Reader(connect("AAPL"))
    nursery.start_soon(reader.run)
    await trio.sleep(590.5)
    clock.step -= 3
    await trio.sleep(12)
    assert all(b - a >= BEAT - 1 for a, b in pairwise(reader.times(PING)))
    assert reader.close_code is None
    await trio.sleep(3)
    assert reader.close_code == 4401


async def test_closing_session_keeps_its_deadline(autojump_clock, wall_clock, connect, nursery):
    """A step does not give a client longer to answer a close frame."""
    clock = wall_clock()
    harness = connect("AAPL")
    nursery.start_soon(
        harness.gateway.services.heartbeat.watch_clock, harness.gateway.pool.sessions
    )
    harness.session.close(Close.GOING_AWAY)
    clock.step -= 3600
    await trio.sleep(4)
    assert not harness.gateway.pool.sessions


async def test_heartbeats_are_spread(autojump_clock, connect):
    """Clients that connected together are not pinged together."""
    harnesses = [connect("AAPL") for _ in range(40)]
    deadlines = sorted(harness.session.deadline for harness in harnesses)
    assert deadlines[-1] - deadlines[0] > BEAT / 2
    assert len({int(deadline) for deadline in deadlines}) > 8


async def test_socket_that_is_full_is_not_pinged(autojump_clock, connect):
    """A ping behind unread frames would never arrive, so the circuit breaker decides."""
    harness = connect("AAPL")
    harness.fill_socket()
    harness.trade("AAPL", 101.0)
    harness.session.outbox.flush()
    assert harness.session.outbox.blocked
    await trio.sleep(3 * BEAT)
    assert harness.session.unanswered == 0
    assert harness.session.state is State.ACTIVE


async def test_close_does_not_wait_for_the_breaker(autojump_clock, connect):
    """A client that sent something and does not read is gone two seconds after the close frame, even
    while its breaker is open.
    """
    harness = connect("AAPL")
    harness.fill_socket()
    harness.trade("AAPL", 101.0)
    harness.session.outbox.flush()
    harness.client.send(frame(PING))
    await trio.sleep(5 * 2 + 1)
    assert harness.hub.breakers[BreakerState.OPEN] == 1
    harness.session.close(Close.TOKEN_EXPIRED)
    await trio.sleep(3)
    assert not harness.gateway.pool.sessions
    assert not +harness.hub.breakers


async def test_breaker_gives_the_connection_up(autojump_clock, connect):
    """A client that never reads: stalls, recovery, trials, and at last 4429."""
    harness = connect("AAPL")
    harness.fill_socket()
    harness.trade("AAPL", 101.0)
    harness.session.outbox.flush()
    given_up_after = 5 * 2 + 3 * (30 + 2)
    await trio.sleep(given_up_after - 1)
    assert not harness.session.closing
    await trio.sleep(2)
    assert harness.session.close_code == 4429
    await trio.sleep(3)
    assert harness.sock.fileno() == -1
    assert errors(harness) == (0, 1)
    assert harness.gateway.pool.lost == 1
