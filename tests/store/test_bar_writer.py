"""Bars are written behind the fence, wait for a database that is away, and are deleted when old."""

from collections.abc import Sequence

import pytest
import structlog
import trio

from server.history.bar import MinuteBar
from server.history.minutes import MAX_UNWRITTEN, Minutes
from server.quotes.instrument import Instrument
from server.quotes.traded import MINUTE_US
from server.quotes.update import Trade
from server.store.bar_writer import TEND_INTERVAL, BarWriter
from server.store.bars import Key
from server.store.bars_memory import MemoryBars
from server.store.catalogue import RowsRefused, StoreUnavailable
from server.store.component import Component
from server.store.stats import StoreStats
from tests.store.test_bar_tables import FIRST, bar

IBM = Instrument(symbol="IBM", name="IBM", base_price=100.0)


class Tables(MemoryBars):
    """Tables that may be away, refuse a minute, or hold old bars. They note what was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.refused = 0
        self.unlisted = set[str]()
        self.old = 0
        self.opened: list[MinuteBar] = []
        self.writes: list[list[MinuteBar]] = []
        self.deleted: list[int] = []
        self.tidied: list[int] = []

    async def write(self, bars: Sequence[MinuteBar]) -> list[str]:
        await trio.lowlevel.checkpoint()
        if self.away:
            raise StoreUnavailable("the tables are away")
        if self.refused in [each.minute for each in bars]:
            raise RowsRefused("a row is refused")
        self.writes.append([*bars])
        await super().write([each for each in bars if each.symbol not in self.unlisted])
        return sorted(self.unlisted.intersection(each.symbol for each in bars))

    async def open_bars(self) -> list[MinuteBar]:
        await trio.lowlevel.checkpoint()
        return self.opened

    async def find(self, keys: Sequence[Key]) -> list[MinuteBar]:
        await trio.lowlevel.checkpoint()
        return await super().find(keys)

    async def delete(self, before: int) -> int:
        self.deleted.append(before)
        await trio.lowlevel.checkpoint()
        if self.away:
            raise StoreUnavailable("the tables are away")
        self.old -= 1
        return int(self.old >= 0)

    async def tidy(self, now: int) -> None:
        self.tidied.append(now)


class World:
    """A writer between some minutes and tables. `leads` is the fence."""

    def __init__(self) -> None:
        self.minutes = Minutes()
        self.tables = Tables()
        self.stats = StoreStats()
        self.leads = True
        self.new: list[str] = []
        database = Component("catalogue", "the tables")
        writing = Component("write_back", "writing")
        self.writer = BarWriter(
            tables=self.tables,
            reading=database,
            writing=writing,
            minutes=self.minutes,
            may_write=lambda: self.leads,
            write_symbols=self.write_symbols,
            stats=self.stats,
        )

    async def write_symbols(self) -> None:
        """Let the tables have the new symbols, as writing their prices does."""
        await trio.lowlevel.checkpoint()
        self.tables.unlisted.difference_update(self.new)

    def trade(self, minute: int, price: float = 100.0) -> None:
        """Let a trade count."""
        time_us = minute * MINUTE_US + 10
        trade = Trade("IBM", price, 1, time_us, time_us)
        self.minutes.absorb(IBM, trade, price)


async def test_open_bars_are_written_when_they_change():
    """An open bar is written once for each change, and again when it is final."""
    world = World()
    world.trade(FIRST)
    assert await world.writer.flush()
    assert await world.writer.flush()
    assert [[each.final for each in batch] for batch in world.tables.writes] == [[False]]
    world.trade(FIRST)
    world.minutes.close(FIRST + 1)
    assert await world.writer.flush()
    [final] = world.tables.writes[-1]
    assert (final.final, final.count) == (True, 2)
    assert world.minutes.unwritten_count == 0
    assert world.stats.bars_written == 2


async def test_bar_of_a_new_symbol_is_written_behind_it():
    """A symbol came since prices were written. Its first bar is not lost."""
    world = World()
    world.tables.unlisted, world.new = {"IBM"}, ["IBM"]
    world.trade(FIRST)
    world.minutes.close(FIRST + 1)
    assert await world.writer.flush()
    assert (world.stats.bars_written, world.stats.bars_refused) == (1, 0)


async def test_only_the_leader_writes():
    """A follower writes nothing, and keeps what it may have to write as the next leader."""
    world = World()
    world.leads = False
    world.trade(FIRST)
    world.minutes.close(FIRST + 1)
    assert await world.writer.flush()
    assert world.tables.writes == []
    world.leads = True
    assert await world.writer.flush()
    assert [each.minute for each in world.tables.writes[0]] == [FIRST]


async def test_bars_wait_for_tables_that_are_away(autojump_clock):
    """Nothing is lost while the tables are away, but for the oldest ones beyond a bound."""
    world = World()
    world.tables.away = True
    for minute in range(FIRST, FIRST + 20):
        world.trade(minute)
    world.minutes.close(FIRST + 20)
    for _ in range(5):
        assert not await world.writer.flush()
    assert world.minutes.release() == 0
    assert world.minutes.unwritten_count == 20
    world.tables.away = False
    await trio.sleep(60)
    assert await world.writer.flush()
    assert world.minutes.unwritten_count == 0
    assert sum(map(len, world.tables.writes)) == 20


def test_the_oldest_bars_are_dropped_at_the_bound(monkeypatch):
    """Beyond the bound the oldest go, are counted, and the others stay."""
    assert MAX_UNWRITTEN == 200_000
    monkeypatch.setattr("server.history.minutes.MAX_UNWRITTEN", 7)
    world = World()
    for minute in range(FIRST, FIRST + 20):
        world.trade(minute)
    world.minutes.close(FIRST + 20)
    assert world.minutes.release() == 13
    assert world.minutes.lost == 13
    assert [each.minute for each in world.minutes.unwritten(99)] == [*range(FIRST + 13, FIRST + 20)]


async def test_a_refused_bar_does_not_hold_the_others():
    """The database may refuse a row: it is reported, and the others of its batch are written."""
    world = World()
    for minute in range(FIRST, FIRST + 9):
        world.trade(minute)
    world.minutes.close(FIRST + 9)
    world.tables.refused = FIRST + 4
    with structlog.testing.capture_logs() as log:
        assert await world.writer.flush()
    assert sum(map(len, world.tables.writes)) == 8
    assert (world.stats.bars_written, world.stats.bars_refused) == (8, 1)
    assert [each["key"] for each in log if each["event"] == "invalid record left out"] == ["IBM"]


async def test_a_late_trade_changes_a_stored_bar():
    """A trade of a minute that memory forgot is added to the stored bar, as its next revision."""
    world = World()
    await world.tables.write([bar(FIRST, rev=3)])
    world.minutes.closed_to = world.minutes.whole_from = FIRST + 100
    world.trade(FIRST, 11.0)
    assert await world.writer.flush()
    [kept] = await world.tables.find([("IBM", FIRST)])
    assert (kept.count, kept.volume, kept.high, kept.rev) == (2, 101, 11.0, 4)


@pytest.mark.parametrize("final", [True, False])
async def test_a_restart_goes_on_from_the_open_bar(final):
    """Trades of the minute of the start are added to what the last run counted."""
    world = World()
    world.tables.opened = [bar(FIRST, final=False)]
    world.minutes.begin(FIRST * MINUTE_US + 30_000_000)
    world.trade(FIRST, 11.0)
    assert await world.writer.flush()
    world.trade(FIRST, 12.0)
    if final:
        world.minutes.close(FIRST + 1)
    assert await world.writer.flush()
    kept = world.tables.writes[-1][0]
    assert (kept.open, kept.close, kept.count, kept.final) == (10.0, 12.0, 3, final)


@pytest.mark.parametrize("late", [(FIRST, FIRST + 5), (FIRST + 5, FIRST)])
async def test_new_leader_asks_for_the_bar_of_a_late_trade(late):
    """It goes on from another instance's minutes. The tables have the minute before those, too."""
    world = World()
    await world.tables.write([bar(minute) for minute in late])
    world.minutes.begin((FIRST + 9) * MINUTE_US)
    world.minutes.followed = True
    world.minutes.closed_to, world.minutes.whole_from = FIRST + 8, FIRST + 6
    for minute in late:
        world.trade(minute, 11.0)
        assert await world.writer.flush()
        [kept] = await world.tables.find([("IBM", minute)])
        assert (kept.count, kept.volume, kept.high, kept.rev) == (2, 101, 11.0, 1)


async def test_old_bars_are_deleted_step_by_step(autojump_clock):
    """Steps go on until nothing is old. The newest bar is now: a replay of an old day is kept."""
    world = World()
    world.tables.old = 3
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.writer.tend, 86_400.0)
        await trio.sleep(1)
        assert world.tables.deleted == []
        world.trade(FIRST)
        await trio.sleep(120)
        assert world.tables.deleted == [FIRST - 1440] * 4
        assert world.tables.tidied == [FIRST]
        assert world.stats.bars_deleted == 3
        world.leads = False
        await trio.sleep(TEND_INTERVAL)
        assert len(world.tables.deleted) == 4
        world.leads, world.tables.away = True, True
        await trio.sleep(TEND_INTERVAL)
        assert len(world.tables.deleted) == 5
        nursery.cancel_scope.cancel()
