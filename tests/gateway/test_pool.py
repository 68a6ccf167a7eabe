"""How the pool sends clients away, and what it waits for."""

from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio

from server.gateway import heartbeat, pool
from server.gateway.connection import Connection
from server.gateway.heartbeat import CLOCK_LOOK, Heartbeat
from server.gateway.lifecycle import State
from server.gateway.pool import LATER_MS, SOON_MS, Pool
from server.gateway.refusals import Refusal
from server.pacing import wait_until


class Session:
    """A connection of the pool, which notes when it was sent away: after how many turns of others."""

    def __init__(self, pool: Pool, turns: "Turns", *, closing: bool = False) -> None:
        self.identity = SimpleNamespace(user="ann", expires_at=1e12)
        self.state = State.CONNECTING
        self.beat_at = 1e12
        self.closing = closing
        self.close_code, self.lost = 1001, False
        self.told: list[int] = []
        self.turn: int | None = None
        self.turns = turns
        pool.enter()
        pool.reserve()
        pool.reserve_for("ann")
        pool.add(cast("Connection", self))

    def send_away(self, spread_ms: int) -> None:
        self.told.append(spread_ms)
        self.turn = self.turns.count


class Turns(trio.abc.Instrument):
    """Counts the turns of the event loop."""

    def __init__(self) -> None:
        self.count = 0
        with suppress(RuntimeError):
            trio.lowlevel.add_instrument(self)

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1


def sessions(pool: Pool, count: int, closing: tuple[int, ...] = ()) -> list[Session]:
    turns = Turns()
    return [Session(pool, turns, closing=number in closing) for number in range(count)]


def test_pool_counts_what_comes_and_goes():
    """The places that are taken now, and all sessions since the start."""
    pool = Pool(3, 2)
    first, second = sessions(pool, 2)
    pool.enter()
    assert (pool.opened_total, pool.places, len(pool.sessions)) == (2, 2, 2)
    assert pool.states == {State.CONNECTING: 1, State.ACTIVE: 2}
    assert pool.is_full_for("ann")
    first.lost = second.lost = True
    pool.remove(cast("Connection", first))
    assert not pool.is_full_for("ann")
    pool.reserve_for("ann")
    with pytest.raises(Refusal):
        pool.reserve_for("ann")
    pool.remove(cast("Connection", second))
    pool.leave()
    assert (pool.opened_total, pool.places, len(pool.sessions)) == (2, 0, 0)
    assert (pool.closed, pool.lost) == ({1001: 2}, 2)
    assert not +pool.states
    assert first.state is second.state is State.CLOSED


def test_few_clients_are_sent_to_new_processes():
    """At most so many as asked for, and none that goes already."""
    everyone = Pool(10, 10)
    clients = sessions(everyone, 4, closing=(0, 2))
    everyone.send_away(1)
    assert [each.told for each in clients] == [[], [SOON_MS], [], []]
    everyone.send_away(10)
    assert [each.told for each in clients] == [[], [SOON_MS, SOON_MS], [], [SOON_MS]]


async def test_all_clients_are_sent_away_a_few_at_a_time(monkeypatch, nursery):
    """The others have their turn after each slice. The end waits for the last client."""
    monkeypatch.setattr(pool, "DRAIN_SLICE", 3)
    everyone = Pool(10, 10)
    clients = sessions(everyone, 8)
    turns = clients[0].turns
    drained = trio.Event()

    async def drain() -> None:
        begun = turns.count
        await everyone.drain()
        assert [each.turn - begun for each in clients if each.turn is not None] == [
            0,
            0,
            0,
            1,
            1,
            1,
            2,
            2,
        ]
        drained.set()

    nursery.start_soon(drain)
    await wait_until(lambda: bool(clients[-1].told))
    assert everyone.draining
    assert all(each.told == [LATER_MS] for each in clients)
    for client in clients:
        assert not drained.is_set()
        everyone.remove(cast("Connection", client))
    with trio.fail_after(5):
        await drained.wait()


@pytest.mark.parametrize("last", ["session", "handshake"])
async def test_pool_is_empty_when_neither_sessions_nor_handshakes_are_left(nursery, last):
    """Whichever is the last to end."""
    everyone = Pool(10, 10)
    (client,) = sessions(everyone, 1)
    everyone.enter()
    empty = trio.Event()

    async def wait() -> None:
        await everyone.wait_empty()
        empty.set()

    nursery.start_soon(wait)
    ends = [everyone.leave, lambda: everyone.remove(cast("Connection", client))]
    for end in ends if last == "session" else reversed(ends):
        await trio.testing.wait_all_tasks_blocked()
        assert not empty.is_set()
        end()
    await trio.testing.wait_all_tasks_blocked()
    assert empty.is_set()


async def test_deadlines_move_only_when_the_clock_is_stepped(monkeypatch, autojump_clock, nursery):
    """A few at a time, as ten thousand take longer than others should wait."""
    monkeypatch.setattr(heartbeat, "CHECKPOINT_EVERY", 3)
    wall = SimpleNamespace(ahead=1e9)
    clock = SimpleNamespace(time=lambda: trio.current_time() + wall.ahead)
    monkeypatch.setattr(heartbeat, "time", clock)
    everyone = Pool(10, 10)
    clients = sessions(everyone, 8, closing=(1,))
    turns = clients[0].turns
    moved: list[tuple[int, int]] = []
    wheel: Any = SimpleNamespace(
        set=lambda session, _: moved.append((clients.index(session), turns.count))
    )
    beats = Heartbeat(everyone, wheel, {}, 20.0, 1800.0)
    nursery.start_soon(beats.watch_clock, cast("Any", clients))
    await trio.sleep(3.5 * CLOCK_LOOK)
    wall.ahead += 0.25
    await trio.sleep(2 * CLOCK_LOOK)
    assert moved == []
    wall.ahead += 0.25
    await trio.sleep(2 * CLOCK_LOOK)
    first = moved[0][1]
    assert [(number, turn - first) for number, turn in moved] == [
        (0, 0),
        (2, 0),
        (3, 1),
        (4, 1),
        (5, 1),
        (6, 2),
        (7, 2),
    ]
