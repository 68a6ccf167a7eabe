"""Random trades, revisions, splits, faults of the store, slow clients: the stream, `GET /bars` and
plain Python have the same bars.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from random import Random
from typing import Any, NamedTuple, cast

import msgspec
import pytest
import trio

from server.app.publishing import HubExchange
from server.fanout import bar_topic
from server.fanout.bars import BarsUnavailable
from server.fanout.hub import Hub
from server.gateway.directory import Directory
from server.history.bar import MinuteBar, bar_of
from server.history.timeframe import period_end
from server.intake.intake import Intake
from server.intake.market import Notice, Rules
from server.intake.objects import read_batch
from server.quotes.adjustment import split
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

STEPS = 150

OWED = 4
"""Bars that a slow client is owed in this test. More of them would need hours."""

RANGE = MONDAY - 120, MONDAY + 6000
"""All minutes of the test."""

Bar = dict[str, Any]


class Known(NamedTuple):
    """A trade that a publisher sent."""

    price: float
    size: int
    time_us: int


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
    """A hub with a store, and its clock. It notes the trades that it sent and did not cancel."""

    def __init__(self, hub: Hub, clock: Clock) -> None:
        self.hub, self.clock = hub, clock
        self.tables = SlowTables()
        self.trades = dict[str, Known]()
        self._times = set[int]()
        self.intake = Intake(
            HubExchange(hub, cast(Directory, None), lists_symbols=False), Rules(trades_memory=10**6)
        )
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

    def publish(self, **fields: Any) -> bool:
        """Send an object. Return whether it is accepted."""
        body = msgspec.json.encode({"symbol": "AAPL", **fields})
        taken = self.intake.take(read_batch(body), "sip", "1", None, self.clock.now_us())
        for effect in taken.effects:
            assert not isinstance(effect, Notice)
            self.hub.topics["AAPL"].publish(effect)
        return not taken.answer.rejected

    def trade(self, price: float, size: int, ago_us: int = 0) -> None:
        """Trade now, or some time ago. No two trades have the same time."""
        time_us = self.clock.now_us() - ago_us
        while time_us in self._times:
            time_us += 1
        self._times.add(time_us)
        name = f"t{len(self._times)}"
        self.trades[name] = Known(price, size, time_us)
        assert self.publish(kind="trade", price=price, size=size, ts=time_us, id=name)

    def revise(self, name: str, price: float | None) -> None:
        """Correct a trade's price, or cancel the trade. One from before a split stays as it is."""
        if price is None:
            if self.publish(kind="cancel", id=name):
                del self.trades[name]
        elif self.publish(kind="correct", id=name, price=price):
            self.trades[name] = self.trades[name]._replace(price=price)

    def split(self, ratio: str) -> None:
        """Split the share. Trades of before it can no longer be revised, and bars stay."""
        snapshot = self.hub.topics["AAPL"].snapshot()
        self.hub.relist([split(snapshot, ratio, again=True)])

    def oracle(self, length: int) -> dict[int, tuple[Any, ...]]:
        """Return open, high, low, close, volume and count of each bar."""
        bars = defaultdict[int, list[Known]](list)
        for each in sorted(self.trades.values(), key=lambda known: known.time_us):
            minute = each.time_us // MINUTE_US
            bars[minute - minute % length].append(each)
        found = {}
        for t, trades in bars.items():
            prices, volume = [each.price for each in trades], sum(each.size for each in trades)
            found[t] = (prices[0], max(prices), min(prices), prices[-1], volume, len(prices))
        return found

    async def bars(self, timeframe: Timeframe) -> dict[int, Bar]:
        """Return all bars as `GET /bars` does. Errors: StoreUnavailable."""
        span = Span("AAPL", timeframe, self.hub.bars.zone, *RANGE, 10_000)
        return {bar.minute: as_sent(bar) for bar in await self.reader.read(span)}


def as_sent(bar: MinuteBar) -> Bar:
    """Return a bar in the form in which it is sent."""
    view = bar_of(bar, 2)
    fields = ("o", "h", "l", "c", "v", "n", "vw", "final", "rev")
    return {name: getattr(view, name) for name in fields}


def traded(bar: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what the oracle has of a bar."""
    return tuple(bar[name] for name in ("o", "h", "l", "c", "v", "n"))


class Client:
    """Watches bars, and keeps the last state of each that it got. `missed`: lengths of which it has to
    ask `GET /bars`.
    """

    def __init__(self, market: Market, peer: Peer) -> None:
        self.peer, self._market = peer, market
        self.bars: dict[Timeframe, dict[int, Bar]] = {each: {} for each in LENGTHS}
        self._streamed: dict[tuple[Timeframe, int], Bar] = {}
        self._missed = set[Timeframe]()
        for timeframe in LENGTHS:
            watch(peer, "AAPL", timeframe=timeframe)

    def check(self, timeframe: Timeframe, bars: dict[int, Bar]) -> None:
        """Each of its bars is as `bars` has it."""
        mine = self.bars[timeframe]
        assert mine
        # A bar whose trades were all cancelled comes once more, with a count of 0.
        left = {t: bar for t, bar in mine.items() if bar["n"]}
        assert left == {t: bars.get(t) for t in left}
        assert not {t for t in mine.keys() - left.keys() if t in bars}

    async def take(self) -> None:
        """Read what came. A bar of the stream never goes back, but `GET /bars` may be ahead of it."""
        await self.peer.read()
        taken, self.peer.messages = self.peer.messages, []
        for message in taken:
            if message["type"] == "bar":
                bar = dict(message["bar"])
                timeframe, t = message["timeframe"], minute_of(bar.pop("t"))
                mine, before = self.bars[timeframe], self._streamed.get((timeframe, t), bar)
                assert order(bar) >= order(before)
                self._streamed[timeframe, t] = bar
                mine[t] = max(bar, mine.get(t, bar), key=order)
            elif message["type"] == "bars_missed":
                self._missed.add(message["timeframe"])

    async def ask(self) -> None:
        """Fill gaps as the documentation says: of two states of a bar, the later one counts. One that
        is not there any more was cancelled.
        """
        for timeframe in [*self._missed]:
            try:
                found = await self._market.bars(timeframe)
            except StoreUnavailable:
                return
            self._missed.discard(timeframe)
            mine = self.bars[timeframe]
            self.bars[timeframe] = {
                t: max(bar, mine.get(t, bar), key=order) for t, bar in found.items()
            }


def order(bar: Bar) -> tuple[bool, int]:
    """Return the place of a state among those of its bar."""
    return bar["final"], bar["rev"]


def minute_of(t: str) -> int:
    """Return the minute in which a bar begins."""
    return int(datetime.fromisoformat(t).timestamp()) // 60


class Pages:
    """Reads page after page of one length, and again from the beginning."""

    def __init__(self, market: Market, timeframe: Timeframe, *, descending: bool) -> None:
        self._market, self._timeframe, self._descending = market, timeframe, descending
        self._first, self._end = RANGE

    async def read(self, limit: int) -> None:
        """Read a page. It has the next bars that there are now, however many came or went."""
        market, timeframe, descending = self._market, self._timeframe, self._descending
        zone = market.hub.bars.zone
        span = Span("AAPL", timeframe, zone, self._first, self._end, limit, descending)
        try:
            page = await market.reader.read(span)
        except StoreUnavailable:
            return
        known = market.oracle(LENGTHS[timeframe])
        left = sorted((t for t in known if self._first <= t < self._end), reverse=descending)
        assert [each.minute for each in page] == left[:limit]
        assert [traded(as_sent(each)) for each in page] == [known[each.minute] for each in page]
        if len(page) < limit:
            self._first, self._end = RANGE
        elif descending:
            self._end = page[-1].minute
        else:
            self._first = period_end(page[-1].minute, timeframe, zone)


class World:
    """The market with its clients and readers, and the things that may happen in any order."""

    def __init__(self, market: Market, random: Random) -> None:
        self.market, self.random = market, random
        self.clients: list[Client] = []
        self.pages = [
            Pages(market, timeframe, descending=descending)
            for timeframe in LENGTHS
            for descending in (False, True)
        ]

    async def step(self) -> None:
        """Let one thing happen."""
        steps = {
            self.trade: 7,
            self.trade_late: 4,
            self.cancel: 2,
            self.correct: 2,
            self.split: 0.3,
            self.read_pages: 3,
            self.slow_down: 1,
            self.disturb: 1,
            self.market.writer.flush: 3,
            self.wait: 2,
            self.wait_long: 2,
        }
        (step,) = self.random.choices([*steps], [*steps.values()])
        await step()

    @property
    def price(self) -> float:
        """Any price."""
        return self.random.randint(9_900, 10_100) / 100

    @property
    def size(self) -> int:
        """Any size."""
        return self.random.randint(1, 20)

    async def trade(self) -> None:
        self.market.trade(self.price, self.size)

    async def trade_late(self) -> None:
        ago = self.random.choice((1, 2, 4, 9, 30)) * MINUTE_US - self.random.randrange(MINUTE_US)
        self.market.trade(self.price, self.size, ago)

    async def cancel(self) -> None:
        if trades := self.market.trades:
            self.market.revise(self.random.choice([*trades][-12:]), None)

    async def correct(self) -> None:
        if trades := self.market.trades:
            self.market.revise(self.random.choice([*trades][-12:]), self.price)

    async def split(self) -> None:
        # The intake knows the minute of the last trade before a split only if memory has it.
        self.market.trade(self.price, self.size)
        adjustments = self.market.hub.topics["AAPL"].instrument.adjustments.split()
        self.market.split("1:2" if len(adjustments) % 2 else "2:1")

    async def read_pages(self) -> None:
        for each in self.pages:
            await each.read(self.random.randint(1, 3))

    async def slow_down(self) -> None:
        if self.clients:
            outbox = self.random.choice(self.clients).peer.outbox
            outbox.set_throttle(0 if outbox.throttle else 600)

    async def disturb(self) -> None:
        self.market.tables.away = not self.market.tables.away
        self.market.tables.seconds = self.random.choice((0, 0, 3, 20))

    async def wait(self) -> None:
        await trio.sleep(self.random.choice((0.5, 1, 1, 2)))

    async def wait_long(self) -> None:
        await trio.sleep(self.random.choice((20, 60, 60, 240)))

    async def settle(self) -> None:
        """Let the store answer, and clients read, until nothing more comes."""
        self.market.tables.away = False
        for _ in range(20):
            await trio.sleep(30)
            await self.market.writer.flush()
        # The store may take so long for the last answer. Then no time passes while a test reads.
        await trio.sleep(25)
        self.market.tables.seconds = 0
        for client in self.clients:
            client.peer.outbox.set_throttle(0)
            await client.take()
            await client.ask()


@pytest.mark.parametrize("seed", SEEDS)
async def test_last_state_of_each_bar(autojump_clock, hub, connect, monkeypatch, seed):
    """Whatever comes between: late trades, cancels, corrections, splits, a store that is slow or away,
    clients that come later, and slow ones that miss bars.
    """
    monkeypatch.setattr(bar_topic, "OWED_BARS", OWED)
    random, clock = Random(seed), Clock(hub, MONDAY + 30)
    hub.bars.minutes.whole_from = MONDAY + random.choice((0, 30, 31))
    await clock.reach(30, 1)
    world = World(Market(hub, clock), random)
    for number in range(STEPS):
        await world.step()
        if number % 40 == 10:
            world.clients.append(Client(world.market, connect()))
        for client in world.clients:
            await client.take()
            await client.ask()
            owed = client.peer.outbox.owed
            assert owed <= len(LENGTHS) * (OWED + 2)
    await world.settle()
    for timeframe, minutes in LENGTHS.items():
        bars = await world.market.bars(timeframe)
        assert {t: traded(bar) for t, bar in bars.items()} == world.market.oracle(minutes)
        for client in world.clients:
            client.check(timeframe, bars)
