"""Random trades, faults of the store: the stream, `GET /bars` and plain Python have the same bars."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from random import Random
from typing import Any

import pytest
import trio

from server.fanout.bars import BarsUnavailable
from server.fanout.hub import Hub
from server.history.bar import MinuteBar, bar_of
from server.quotes.traded import MINUTE_US, Timeframe
from server.store.bar_reader import BarReader, Span
from server.store.bar_writer import BarWriter
from server.store.catalogue import StoreUnavailable
from server.store.component import Component
from server.store.stats import StoreStats
from tests.fanout.peer import Peer
from tests.fanout.test_bars import MONDAY, Clock, watch
from tests.store.test_bar_writer import Tables

LENGTHS: dict[Timeframe, int] = {"1m": 1, "5m": 5, "1h": 60}

SEEDS = range(8)

Streamed = dict[tuple[Timeframe, str], dict[str, Any]]
"""The last state of each bar that a client got, by its length and time."""


class SlowTables(Tables):
    """Tables that take `seconds` for a read."""

    seconds = 0.0

    async def read(self, wanted: Any) -> list[MinuteBar]:
        found = await super().read(wanted)
        await trio.sleep(self.seconds)
        if self.away:
            raise StoreUnavailable("the tables are away")
        return found

    async def find(self, keys: Any) -> list[MinuteBar]:
        if self.away:
            raise StoreUnavailable("the tables are away")
        return await super().find(keys)


class Market:
    """A hub with a store, and its clock. It notes the prices of each minute's trades."""

    def __init__(self, hub: Hub, clock: Clock) -> None:
        self.hub, self.clock = hub, clock
        self.tables = SlowTables()
        self.trades = defaultdict[int, list[float]](list)
        minutes = hub.bars.minutes
        database = Component("catalogue", "the tables")

        async def write_symbols() -> None:
            pass

        self.writer = BarWriter(
            tables=self.tables,
            reading=database,
            writing=Component("write_back", "writing"),
            minutes=minutes,
            may_write=lambda: True,
            write_symbols=write_symbols,
            stats=StoreStats(),
        )
        self.reader = BarReader(self.tables, database, minutes, self.writer.settle)
        hub.bars.load = self.load

    async def load(
        self, symbol: str, start: int, end: int, without: Sequence[int]
    ) -> MinuteBar | None:
        """Ask the store."""
        try:
            return await self.reader.stored(symbol, start, end, without)
        except StoreUnavailable as error:
            raise BarsUnavailable(str(error)) from None

    def trade(self, price: float, minutes_ago: int = 0) -> None:
        """Trade now, or late in an earlier minute. A late one is at its beginning."""
        minute = self.clock.now_us() // MINUTE_US - minutes_ago
        self.clock.trade(price, minute=minute - MONDAY if minutes_ago else None)
        self.trades[minute].append(price)

    def oracle(self, length: int) -> dict[int, tuple[Any, ...]]:
        """Return high, low, volume and count of each bar."""
        prices = defaultdict[int, list[float]](list)
        for minute, trades in self.trades.items():
            prices[minute - minute % length] += trades
        return {t: (max(p), min(p), 10 * len(p), len(p)) for t, p in prices.items()}

    async def bars(self, timeframe: Timeframe) -> dict[int, dict[str, Any]]:
        """Return all bars as `GET /bars` does."""
        hour = MONDAY - MONDAY % 60
        span = Span("AAPL", timeframe, self.hub.bars.zone, hour - 120, hour + 6000, 10_000)
        found = await self.reader.read(span)
        return {bar.minute: as_sent(bar) for bar in found}


def as_sent(bar: MinuteBar) -> dict[str, Any]:
    """Return a bar in the form in which it is sent."""
    view = bar_of(bar, 2)
    fields = ("o", "h", "l", "c", "v", "n", "vw", "final", "rev")
    return {name: getattr(view, name) for name in fields}


async def take(peer: Peer, streamed: Streamed) -> None:
    """Read what a client got."""
    await peer.read()
    taken, peer.messages = peer.messages, []
    for message in taken:
        if message["type"] == "bar":
            bar = dict(message["bar"])
            key = message["timeframe"], bar.pop("t")
            before = streamed.get(key)
            assert before is None or (bar["final"], bar["rev"]) >= (before["final"], before["rev"])
            streamed[key] = bar


async def happen(market: Market, random: Random) -> None:
    """Let one of the things happen that may come in any order."""
    price = random.randint(9_900, 10_100) / 100

    async def disturb() -> None:
        market.tables.away = not market.tables.away
        market.tables.seconds = random.choice((0, 0, 3, 20))

    async def trade() -> None:
        market.trade(price)

    async def trade_late() -> None:
        market.trade(price, random.choice((1, 2, 4, 9, 30)))

    async def wait() -> None:
        await trio.sleep(random.choice((0.5, 1, 1, 2)))

    async def wait_long() -> None:
        await trio.sleep(random.choice((20, 60, 60, 240)))

    steps = [trade, trade_late, disturb, market.writer.flush, wait, wait_long]
    (step,) = random.choices(steps, (7, 4, 1, 3, 2, 2))
    await step()


@pytest.mark.parametrize("seed", SEEDS)
async def test_last_state_of_each_bar(autojump_clock, hub, connect, seed):
    """Whatever comes between: late trades, a store that is slow or away, clients that come later."""
    random, clock = Random(seed), Clock(hub, MONDAY + 30)
    hub.bars.minutes.whole_from = MONDAY + random.choice((0, 30, 31))
    await clock.reach(30, 1)
    market, peers = Market(hub, clock), list[tuple[Peer, Streamed]]()
    for number in range(150):
        await happen(market, random)
        if number % 40 == 10:
            peers.append((connect(), {}))
            for timeframe in LENGTHS:
                watch(peers[-1][0], "AAPL", timeframe=timeframe)
        for peer, streamed in peers:
            await take(peer, streamed)
    market.tables.away = False
    for _ in range(20):
        await trio.sleep(30)
        await market.writer.flush()
    # The store may take so long for the last answer. Then no time passes while this test reads.
    await trio.sleep(25)
    market.tables.seconds = 0
    for peer, streamed in peers:
        await take(peer, streamed)
        assert streamed
    for timeframe, minutes in LENGTHS.items():
        bars = await market.bars(timeframe)
        found = {t: (bar["h"], bar["l"], bar["v"], bar["n"]) for t, bar in bars.items()}
        assert found == market.oracle(minutes)
        for _, streamed in peers:
            mine = {t: bar for (length, t), bar in streamed.items() if length == timeframe}
            assert mine == {t: bars[minute_of(t)] for t in mine}


def minute_of(t: str) -> int:
    """Return the minute in which a bar begins."""
    return int(datetime.fromisoformat(t).timestamp()) // 60
