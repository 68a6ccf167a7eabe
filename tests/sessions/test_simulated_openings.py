"""The simulator around an opening: a symbol's session begins before its first price of that session."""

from collections.abc import Iterable

import pytest
import trio
from msgspec.structs import replace

from server.app.prices import Prices
from server.config.settings import Settings
from server.config.values import Duration, FeedChoice
from server.fanout.hub import Hub
from server.fanout.openings import LOOK_INTERVAL
from server.quotes.instrument import Instrument
from server.quotes.update import NOWHERE, Trade
from tests.fanout.peer import Peer, instruments
from tests.fanout.test_openings import CALENDAR, DAY, OPENING, clock_from, day

SYMBOLS = [f"S{number}" for number in range(100)]

SLOW_ROUND = 0.05
"""Seconds of a round of the flusher on a busy machine. The opening of all SYMBOLS takes 0.35 s."""

PRICES = Prices(
    Settings(
        feed=FeedChoice.parse("simulator"), session=CALENDAR, price_update_interval=Duration(0.1)
    )
)


def set_clock(monkeypatch: pytest.MonkeyPatch, moment: int) -> None:
    """Set the wall clock of the simulator and of the openings. It goes on with trio's clock."""
    clock = clock_from(moment)
    for module in ("server.feeds.simulator", "server.fanout.openings"):
        monkeypatch.setattr(f"{module}.time_ns", lambda: clock() * 1000)


async def start(tasks: trio.Nursery, listed: Iterable[Instrument] = ()) -> Hub:
    """Return a running hub with slow rounds."""
    hub = Hub(listed)
    await tasks.start(hub.run)
    flusher = hub.topic_tasks.flusher
    flush = flusher._flush

    async def slow_flush(*round: object) -> None:
        await trio.sleep(SLOW_ROUND)
        await flush(*round)  # type: ignore[arg-type]  # passes on what it got

    flusher._flush = slow_flush  # type: ignore[method-assign,assignment]  # takes its time
    return hub


def watch(hub: Hub) -> Peer:
    """Return a client of all symbols, as the simulator moves only those that are watched."""
    peer = Peer(hub)
    peer.subscribe(*hub.topics)
    return peer


async def test_leader_dies_during_the_opening(autojump_clock, nursery, monkeypatch):
    """The next leader opens the symbols that the last one did not, and no others."""
    set_clock(monkeypatch, OPENING - 1_000_000)
    hub = await start(nursery, instruments(*SYMBOLS))
    for topic in hub.topics.values():
        topic.publish(Trade(topic.symbol, 101.0, 100, OPENING - DAY, OPENING - DAY))
    peer = watch(hub)
    async with trio.open_nursery() as leading:
        leading.start_soon(PRICES._run_beside_openings, hub, hub, NOWHERE)
        await trio.sleep(1.2)
        leading.cancel_scope.cancel()
    peer.close()
    states = [topic.live_snapshot() for topic in hub.topics.values()]
    closes = {each.symbol: each.previous_close for each in states if each.opened_at == OPENING}
    assert 0 < len(closes) < len(SYMBOLS)

    later = await start(nursery)
    later.adopt(states)
    peer = watch(later)
    nursery.start_soon(PRICES._run_beside_openings, later, later, NOWHERE)
    await trio.sleep(5)
    peer.close()
    for symbol, topic in later.topics.items():
        close = topic.quote.previous_close
        assert close is not None, symbol
        assert close == closes.get(symbol, close)
        assert topic.quote.open is not None


async def test_symbol_of_an_earlier_session_is_listed(autojump_clock, nursery, monkeypatch):
    """It opens before it moves, although the next look at the symbols comes later."""
    set_clock(monkeypatch, OPENING + 1_000_000)
    hub = await start(nursery, instruments("S0"))
    nursery.start_soon(PRICES._run_beside_openings, hub, hub, NOWHERE)
    await trio.sleep(0.1)
    state = hub.topics["S0"].snapshot()
    hub.list_snapshots([replace(state, symbol="OLD", version=9, volume=5, last_quote=101.0)])
    peer = watch(hub)
    await trio.sleep(LOOK_INTERVAL + 0.5)
    peer.close()
    assert day(hub, "OLD")[:2] == (101.0, 101.0)
    assert hub.topics["OLD"].version > 10


async def test_price_from_a_clock_that_is_ahead(autojump_clock, nursery, monkeypatch):
    """A trade that came before the opening belongs to the session before, whatever its time is."""
    set_clock(monkeypatch, OPENING - 1_000_000)
    hub = await start(nursery, instruments("S0"))
    nursery.start_soon(PRICES._run_beside_openings, hub, hub, NOWHERE)
    hub.topics["S0"].publish(Trade("S0", 101.0, 100, OPENING + 1_000_000, OPENING - 1_000_000))
    await trio.sleep(2)
    assert day(hub, "S0") == (101.0, 101.0, None, None, None, 0, 3)
