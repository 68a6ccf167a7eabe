"""The tables of bars: Postgres, SQLite and memory give the same bars, and never go back."""

from random import Random
from time import time, time_ns
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
import trio
import trio_asyncio

from server.history.bar import MinuteBar
from server.history.timeframe import MINUTES, TIMEFRAMES, period_end, period_start, roll_up
from server.quotes.adjustment import begun_us
from server.quotes.traded import MINUTE_US
from server.store.bars import Wanted
from server.store.catalogue import Catalogue, StoreUnavailable
from server.store.catalogue_postgres import open_postgres
from server.store.stats import StoreStats
from tests.store.conftest import fill, instrument

FIRST = 1_381_152_600 // 60
"""The minute of 2013-10-07 09:30 in New York."""

NEW_YORK = ZoneInfo("America/New_York")


def bar(minute: int, symbol: str = "IBM", **fields: object) -> MinuteBar:
    """Return a final bar of one trade."""
    made = MinuteBar(
        symbol=symbol,
        minute=minute,
        open=10.0,
        high=10.0,
        low=10.0,
        close=10.0,
        volume=100,
        count=1,
        turnover=1000.0,
        first_us=minute * MINUTE_US + 5,
        last_us=minute * MINUTE_US + 5,
        final=True,
    )
    return msgspec.structs.replace(made, **fields)


def walk(minutes: int, symbol: str = "IBM", first: int = FIRST) -> list[MinuteBar]:
    """Return a random walk that trades in some of the minutes."""
    random, price, bars = Random(minutes), 100.0, []
    for minute in range(first, first + minutes):
        if random.random() < 0.3:
            continue
        prices = [price := round(price + random.randint(-9, 9) / 100, 2) for _ in range(4)]
        bars.append(
            bar(
                minute,
                symbol,
                open=prices[0],
                high=max(prices),
                low=min(prices),
                close=prices[-1],
                volume=random.randint(1, 500),
                count=4,
                turnover=100 * sum(prices),
                last_us=minute * MINUTE_US + 59_999_999,
                rev=random.choice((0, 0, 0, 3)),
            )
        )
    return bars


async def minutes_of(catalogue: Catalogue, symbol: str = "IBM", **fields: Any) -> list[MinuteBar]:
    wanted = Wanted(symbol, 0, 2**31 - 1, 10_000)._replace(**fields)
    with trio.fail_after(20):
        return await catalogue.bars.read(wanted)


async def test_bars_come_back_as_they_were_written(catalogue):
    """All fields of several symbols are read back exactly, in order, with limits and both ways."""
    await fill(catalogue, instrument("IBM"), instrument("BTC/USD"))
    ours, others = walk(300), [bar(FIRST + 2, "BTC/USD", volume=0.125, turnover=1.3125)]
    assert await catalogue.bars.write([*others, *reversed(ours)]) == []
    assert await minutes_of(catalogue) == ours
    assert await minutes_of(catalogue, "BTC/USD") == others
    assert await minutes_of(catalogue, limit=7, descending=True) == ours[:-8:-1]
    end = ours[20].minute
    assert await minutes_of(catalogue, first=ours[10].minute, end=end) == ours[10:20]
    assert await minutes_of(catalogue, without=[each.minute for each in ours[3:]]) == ours[:3]
    assert await minutes_of(catalogue, "NOPE") == []
    keys = [("BTC/USD", FIRST + 2), ("IBM", ours[5].minute), ("IBM", 7), ("NOPE", 7)]
    found = await catalogue.bars.find(keys)
    assert {each.symbol: each for each in found} == {"BTC/USD": others[0], "IBM": ours[5]}


async def test_a_bar_never_goes_back(catalogue):
    """Writing again changes nothing. A final bar gives way to a higher revision only."""
    await fill(catalogue, instrument("IBM"))

    async def after(*bars: MinuteBar) -> MinuteBar:
        for each in bars:
            await catalogue.bars.write([each])
        (kept,) = await minutes_of(catalogue)
        return kept

    still_open = bar(FIRST, count=2, final=False)
    cancelled, final = bar(FIRST, final=False), bar(FIRST, close=11.0)
    assert await after(still_open) == still_open
    assert await after(cancelled) == cancelled
    assert await after(final, still_open, bar(FIRST, close=12.0)) == final
    revised = bar(FIRST, close=13.0, rev=2)
    assert await after(revised, revised, final, bar(FIRST, rev=1)) == revised


async def test_of_equal_revisions_the_one_of_more_trades_stays(catalogue):
    """A leader was frozen, and ended the minute without the trades that the next leader got."""
    await fill(catalogue, instrument("IBM"))
    frozen, whole = bar(FIRST, count=3), bar(FIRST, count=7)
    for first, second in ((frozen, whole), (whole, frozen)):
        await catalogue.bars.write([first])
        await catalogue.bars.write([second, bar(FIRST, count=9, final=False)])
        assert await minutes_of(catalogue) == [whole]


async def test_frozen_leader_wakes_while_the_next_one_writes(catalogue):
    """It does not know yet that it is deposed. Its statements come in any order among newer ones."""
    await fill(catalogue, instrument("IBM"))
    states = [
        [bar(minute, count=4 + rev, rev=rev) for minute in range(FIRST, FIRST + 20)]
        for rev in range(6)
    ]
    frozen = [bar(minute, count=1, final=False) for minute in range(FIRST, FIRST + 20)]
    frozen_finals = [bar(minute, count=1) for minute in range(FIRST, FIRST + 20)]
    with trio.fail_after(20):
        async with trio.open_nursery() as writers:
            for batch in [*states, *states[::-1], frozen, frozen_finals, frozen]:
                writers.start_soon(catalogue.bars.write, batch)
    assert await minutes_of(catalogue) == states[-1]


@pytest.mark.parametrize("catalogue", ["sqlite", "postgres"], indirect=True)
async def test_unlisted_symbols_are_named_and_the_others_written(catalogue):
    """A symbol that the catalogue does not have yet is returned, so that it can be tried later."""
    await fill(catalogue, instrument("IBM"))
    assert await catalogue.bars.write([bar(FIRST), bar(FIRST, "NEW")]) == ["NEW"]
    assert await minutes_of(catalogue) == [bar(FIRST)]


@pytest.mark.parametrize("catalogue", ["sqlite", "postgres"], indirect=True)
async def test_history_follows_a_renamed_symbol(catalogue):
    """The new symbol has the bars of the old one, also those written under the old one later."""
    await fill(catalogue, instrument("FB"))
    await catalogue.bars.write([bar(FIRST, "FB")])
    await catalogue.rename("FB", "META")
    both = [bar(FIRST + 1, "FB"), bar(FIRST + 1, "META", rev=1)]
    assert await catalogue.bars.write(both) == []
    wanted = [bar(FIRST, "META"), bar(FIRST + 1, "META", rev=1)]
    assert await minutes_of(catalogue, "META") == wanted
    assert await minutes_of(catalogue, "FB") == []


@pytest.mark.parametrize("timeframe", TIMEFRAMES[1:])
async def test_timeframes_are_rolled_up(catalogue, timeframe):
    """Each timeframe equals its minutes put together in Python, over a change of clocks."""
    await fill(catalogue, instrument("IBM"))
    # From Thursday to Tuesday; the clocks of New York go back on Sunday, 2013-11-03.
    ours = walk(5 * 1440, first=FIRST + 24 * 1440)
    await catalogue.bars.write(ours)
    first, end = ours[0].minute, ours[-1].minute + 1
    rolled = roll_up(ours, timeframe, end, NEW_YORK)
    starts = [period_start(first, timeframe, NEW_YORK)]
    while timeframe not in MINUTES and starts[-1] < end:
        starts.append(period_end(starts[-1], timeframe, NEW_YORK))
    size = MINUTES.get(timeframe, 100_000)
    asked: dict[str, Any] = {"starts": starts, "size": size, "first": first, "end": end}
    assert rounded(await minutes_of(catalogue, **asked)) == rounded(rolled)
    newest = await minutes_of(catalogue, **asked, limit=2, descending=True)
    assert rounded(newest) == rounded(rolled[:-3:-1])


async def test_longer_bar_of_cancelled_trades_has_its_revisions(catalogue):
    """A bar has no trade, but its minutes' revisions. Its other minutes may be in memory alone."""
    await fill(catalogue, instrument("IBM"))
    empty: dict[str, Any] = {"volume": 0, "count": 0, "turnover": 0.0}
    stored = [bar(FIRST, rev=2, **empty), bar(FIRST + 3, rev=1, **empty), bar(FIRST + 5)]
    await catalogue.bars.write(stored)
    rolled = await minutes_of(catalogue, starts=[0], size=5, first=FIRST, end=FIRST + 60)
    found = [(each.minute, each.count, each.volume, each.rev, each.high) for each in rolled]
    assert found == [(FIRST, 0, 0, 3, 10.0), (FIRST + 5, 1, 100, 0, 10.0)]
    (whole,) = await minutes_of(catalogue, starts=[FIRST], size=1440, first=FIRST, end=FIRST + 5)
    assert (whole.count, whole.rev, whole.final) == (0, 3, True)
    wanted: dict[str, Any] = {"starts": [FIRST], "size": 1440, "end": FIRST + 900}
    assert await minutes_of(catalogue, **wanted, first=FIRST + 800) == []


async def begun(catalogue: Catalogue, symbol: str) -> int:
    """Return the minute in which the symbol's instrument got it."""
    (row,) = await catalogue.find([symbol])
    return begun_us(row.adjustments) // MINUTE_US


@pytest.mark.parametrize("catalogue", ["sqlite", "postgres"], indirect=True)
async def test_bars_of_an_earlier_instrument_end(catalogue):
    """Those of the minute in which another one gets the symbol have no trade left. Others stay."""
    await fill(catalogue, instrument("IBM"), instrument("AIG"))
    now = time_ns() // 1000 // MINUTE_US
    ours = [bar(now + n, final=n < 0) for n in range(-1, 3)]
    others = [msgspec.structs.replace(each, symbol="AIG") for each in ours]
    await catalogue.bars.write([*ours, *others])
    await catalogue.upsert([instrument("IBM", "New")], lambda _: None, anew=True)
    first = await begun(catalogue, "IBM")
    assert await minutes_of(catalogue) == [each for each in ours if each.minute < first]
    assert await minutes_of(catalogue, "AIG") == others
    traded = bar(first, close=11.0, count=1, final=False)
    await catalogue.bars.write([traded])
    assert await minutes_of(catalogue, first=first) == [traded]


@pytest.mark.parametrize("catalogue", ["sqlite", "postgres"], indirect=True)
async def test_symbols_change_hands_within_a_minute(catalogue):
    """AIG gets the symbol of IBM, which was delisted. A third instrument gets that of AIG."""
    await fill(catalogue, instrument("IBM"), instrument("AIG"))
    now = time_ns() // 1000 // MINUTE_US
    moved = [bar(now + n, "AIG", close=11.0) for n in range(2)]
    await catalogue.bars.write([*moved, *(bar(now + n, final=False) for n in range(2))])
    await catalogue.delist(["IBM"])
    await catalogue.rename("AIG", "IBM")
    await fill(catalogue, instrument("AIG", "Third"))
    wanted = [msgspec.structs.replace(each, symbol="IBM") for each in moved]
    assert await minutes_of(catalogue) == wanted
    assert await minutes_of(catalogue, "AIG", first=await begun(catalogue, "AIG")) == []


def rounded(bars: list[MinuteBar]) -> list[MinuteBar]:
    """Return bars whose turnover has no noise of summing in another order."""
    return [
        msgspec.structs.replace(each, turnover=round(each.turnover, 6), final=True) for each in bars
    ]


@pytest.mark.parametrize("catalogue", ["sqlite", "postgres"], indirect=True)
async def test_open_bars_are_found_again(catalogue):
    """The open ones of the last two bars are found, so that a restart continues them."""
    await fill(catalogue, instrument("IBM"), instrument("AIG"))
    ours = [bar(FIRST + n, final=n < 8) for n in range(10)]
    await catalogue.bars.write([*ours, bar(FIRST, "AIG")])
    found = await catalogue.bars.open_bars()
    assert sorted(found, key=lambda each: each.minute) == ours[8:]


@pytest.mark.parametrize("catalogue", ["sqlite", "postgres"], indirect=True)
async def test_old_bars_are_deleted(catalogue):
    """Deleting in steps ends, and leaves newer bars. Postgres drops the months that are over."""
    await fill(catalogue, instrument("IBM"), instrument("AIG"))
    month = 31 * 1440
    new = [bar(FIRST + 2 * month), bar(FIRST + 2 * month, "AIG")]
    await catalogue.bars.write([*walk(3000), *walk(10, "AIG"), *new])
    steps = 0
    while await catalogue.bars.delete(FIRST + month + 5000):
        steps += 1
        assert steps < 100
    assert steps > 0
    assert await minutes_of(catalogue) == new[:1]
    assert await minutes_of(catalogue, "AIG") == new[1:]


async def test_a_month_that_is_over_is_rewritten(catalogue, request):
    """Its bars stay as they are, later ones still come in, and the next months have partitions."""
    await fill(catalogue, instrument("IBM"), instrument("AIG"))
    ours, others = walk(90), walk(90, "AIG")
    by_time = sorted([*ours, *others], key=lambda each: each.minute)
    for each in by_time:
        await catalogue.bars.write([each])
    later = FIRST + 60 * 1440
    for _ in range(2):
        await catalogue.bars.tidy(later)
        assert await minutes_of(catalogue) == ours
        assert await minutes_of(catalogue, "AIG") == others
    late = bar(FIRST - 60)
    await catalogue.bars.write([late])
    assert await minutes_of(catalogue) == [late, *ours]
    if catalogue.name != "postgres":
        return
    sql = request.getfixturevalue("shared_postgres").sql
    database = request.getfixturevalue("database")
    tables = sql(
        "SELECT relname, obj_description(oid) FROM pg_inherits JOIN pg_class ON oid = inhrelid "
        "WHERE inhparent = 'minute_bars'::regclass AND relname < 'minute_bars_2020' ORDER BY 1",
        database,
    )
    assert tables.splitlines() == [
        "minute_bars_2013_10|in the order of symbols",
        "minute_bars_2013_12|",
        "minute_bars_2014_01|",
        "minute_bars_2014_02|",
    ]
    rows = sql("SELECT instrument FROM minute_bars_2013_10", database).splitlines()
    assert rows[:-1] == sorted(rows[:-1])


async def test_a_role_that_cannot_make_partitions_uses_those_there_are(request, database_url):
    """A server whose role does not own the table writes into the months that `migrate` has made."""
    sql = request.getfixturevalue("shared_postgres").sql
    database = request.getfixturevalue("database")
    now = int(time() // 60)
    async with trio_asyncio.open_loop():
        async with open_postgres(database_url, 2, StoreStats()) as owner:
            await owner.migrate()
            await fill(owner, instrument("IBM"))
        role = f"writer_of_{database}"
        sql(f"CREATE ROLE {role} LOGIN", database)
        for table in ("market_data", "minute_bars", "schema_migrations"):
            sql(f"GRANT SELECT, INSERT, UPDATE ON {table} TO {role}", database)
        try:
            url = database_url.replace("quotes@", f"{role}@")
            async with open_postgres(url, 2, StoreStats()) as writer:
                assert await writer.migrate() == []
                await writer.bars.tidy(now)
                assert await writer.bars.write([bar(now)]) == []
                with pytest.raises(StoreUnavailable):
                    await writer.bars.write([bar(FIRST)])
                assert await minutes_of(writer) == [bar(now)]
        finally:
            sql(f"DROP OWNED BY {role}; DROP ROLE {role}", database)
