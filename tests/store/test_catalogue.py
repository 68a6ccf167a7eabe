"""The contract of the catalogue, for Postgres, SQLite and memory."""

import asyncio
from functools import partial

import msgspec
import pytest
import trio
import trio_asyncio

from server.quotes.instrument import Instrument
from server.quotes.snapshot import opening_snapshot
from server.store.catalogue import reason_of
from server.store.catalogue_postgres import open_postgres
from server.store.stats import StoreStats
from tests.processes import eventually
from tests.store.conftest import TIMEOUT, fill, instrument

IN_PROGRESS = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"


async def test_what_is_listed_is_found(catalogue):
    """Every field comes back unchanged. Unknown symbols are left out."""
    fund = Instrument(
        symbol="SPY",
        name='A fund\'s, "the" 100 % one',
        type="ETF",
        base_price=450.1234,
        market_cap=10**13,
        price_decimals=4,
        made_up_price=True,
    )
    odd = instrument("A/B~C\"\\'É", "Nestlé — 日本; DROP TABLE market_data")
    await fill(catalogue, fund, odd)
    found = await catalogue.find(["SPY", "NOPE", odd.symbol])
    assert {row.symbol: row for row in found} == {
        each.symbol: opening_snapshot(each) for each in (fund, odd)
    }
    assert sorted((row.instrument for row in found), key=lambda i: i.symbol) == [odd, fund]
    assert await catalogue.find([]) == []


async def test_upsert_changes_reference_data_and_keeps_prices(catalogue):
    """A second import renames. Traded instruments keep their price, the others get the new one."""
    await fill(catalogue, instrument("AAPL"), instrument("MSFT"))
    traded = msgspec.structs.replace(
        opening_snapshot(instrument("AAPL")), last_quote=101.5, version=7, volume=300, quoted_at=5
    )
    await catalogue.save([traded], [])
    await fill(catalogue, instrument("AAPL", "Apple", 90), instrument("MSFT", "Microsoft", 80))
    rows = {row.symbol: row for row in await catalogue.find(["AAPL", "MSFT"])}
    apple, microsoft = rows["AAPL"], rows["MSFT"]
    assert (apple.name, apple.base_price) == ("Apple", 90)
    assert (apple.last_quote, apple.version, apple.volume, apple.quoted_at) == (101.5, 7, 300, 5)
    assert (microsoft.last_quote, microsoft.base_price, microsoft.version) == (80, 80, 1)


async def test_batches_are_counted(catalogue):
    """An import of many rows reports its progress up to the last row."""
    told: list[int] = []
    await catalogue.upsert([instrument(f"S{number:04}") for number in range(2500)], told.append)
    assert told[-1] == 2500
    assert told == sorted(told)
    assert len(await catalogue.find([f"S{number:04}" for number in range(2500)])) == 2500


async def test_save_is_never_undone_by_an_older_version(catalogue):
    """The higher version wins in any order. A symbol that is not listed becomes listed."""
    row = opening_snapshot(instrument("NEW"))
    newer = msgspec.structs.replace(row, version=9, last_quote=9.0)
    older = msgspec.structs.replace(row, version=4, last_quote=4.0)
    await catalogue.save([newer], [])
    await catalogue.save([older], [])
    assert await catalogue.find(["NEW"]) == [newer]
    await catalogue.save([], [])


async def test_pages_are_the_whole_in_order(catalogue):
    """Reading on after each page's last symbol gives each symbol once, in the order of code points."""
    symbols = ["A", "A.B", "AB", "B", "É", "Ω"]
    await fill(catalogue, *map(instrument, reversed(symbols)))
    met, after = [], ""
    while page := await catalogue.page(after, 4):
        met += [row.symbol for row in page]
        after = met[-1]
    assert met == symbols


async def test_recently_watched_come_first(catalogue):
    """The most recently watched symbol comes first."""
    await fill(catalogue, *map(instrument, "ABC"))
    await catalogue.save([], ["A"])
    await catalogue.save([], ["C"])
    assert await catalogue.recently_watched(10) == ["C", "A"]
    assert await catalogue.recently_watched(1) == ["C"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        # A whole word, then names with words that begin so.
        ("micro", ["AMD", "MCHP", "MSFT", "MU"]),
        ("AMD", ["AMD", "AMDX"]),
        ("amd", ["AMD", "AMDX"]),
        ("M", ["M", "MCHP", "MSFT", "MU", "AMD"]),
        ("adv dev", ["AMD"]),
        ("dev adv", ["AMD"]),
        ("o'reilly", ["ORLY"]),
        ("o", ["ORLY"]),
        ("nestlé", ["NESN"]),
        ("ro", []),  # of "Micro" only the beginning counts
        ("%", []),
        ("_", []),
        ("'", []),
        ("*", []),
        ("\\", []),
        ("& | !", []),
        ("(", []),
        (".", []),
        ("M)", ["M", "MCHP", "MSFT", "MU", "AMD"]),
    ],
)
async def test_search_ranks(catalogue, query, expected):
    """The order is: exact symbol, other symbols, names with the word, names with such a beginning."""
    await fill(
        catalogue,
        instrument("M", "Macy's"),
        instrument("MCHP", "Microchip Technology"),
        instrument("MSFT", "Microsoft"),
        instrument("MU", "Micron Technology"),
        instrument("AMD", "Advanced Micro Devices"),
        instrument("AMDX", "Something"),
        instrument("ORLY", "O'Reilly"),
        instrument("NESN", "nestlé"),
    )
    found = [row.symbol for row in await catalogue.search(query, 20)]
    assert found == expected
    assert len(await catalogue.search("m", 2)) == 2


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("O'Reilly", ["ORLY"]),
        ("reilly", ["ORLY"]),
        ("oreilly", ["ORLY"]),
        ("brown-forman", ["BF.B"]),
        ("Brown–Forman", ["BF.B"]),
        ("brown forman", ["BF.B"]),
        ("Estee Lauder", ["EL"]),
        ("estée", ["EL"]),
        ("ＥＳＴＥＥ", ["EL"]),
        ("AT&T", ["T"]),
        ("att", ["T"]),
        ("BF-B", ["BF.B"]),
        ("bf/b", ["BF.B"]),
        ("bfb", ["BF.B"]),
        ("bf-", ["BF.B"]),
        ("ЯНДЕКС", ["YNDX"]),
        ("яндекс", ["YNDX"]),
        ("яндкс", ["YNDX"]),
        ("Lauber", ["EL"]),
        ("Creativty Globall", ["AACG"]),
        ("Globe", ["AACG"]),
        ("forn", []),
    ],
)
async def test_search_as_people_type(catalogue, query, expected):
    """Punctuation, accents, case, spellings of a symbol, and one typing error in a longer word."""
    await fill(
        catalogue,
        instrument("ORLY", "O’Reilly Automotive"),
        instrument("BF.B", "Brown–Forman"),
        instrument("EL", "Estée Lauder Companies (The)"),
        instrument("T", "AT&T"),
        instrument("AACG", "ATA Creativity Global"),
        instrument("YNDX", "Яндекс"),
    )
    assert [row.symbol for row in await catalogue.search(query, 20)] == expected


async def test_search_ranks_whole_words_of_many(catalogue):
    """The one name with the word is first, though a thousand others begin with it."""
    many = [instrument(f"S{number:05}", f"Catalyst {number}") for number in range(1500)]
    await fill(catalogue, *many, instrument("ZZZ", "The Cat"))
    found = [row.symbol for row in await catalogue.search("cat", 20)]
    assert (found[0], len(found)) == ("ZZZ", 20)


async def test_renamed_is_found_by_its_new_name(catalogue):
    """And not by the old one; an instrument that its first price listed is found, too."""
    await fill(catalogue, instrument("FB", "Facebook"))
    await fill(catalogue, instrument("FB", "Meta Platforms"))
    await catalogue.save([opening_snapshot(instrument("NEW", "Newcomer"))], [])
    assert [row.symbol for row in await catalogue.search("meta", 20)] == ["FB"]
    assert [row.symbol for row in await catalogue.search("newcom", 20)] == ["NEW"]
    assert await catalogue.search("facebook", 20) == []


async def test_migrating_again_changes_nothing(catalogue):
    """A second migration applies nothing and keeps all rows."""
    await fill(catalogue, instrument("AAPL"))
    assert await catalogue.migrate() == []
    assert len(await catalogue.find(["AAPL"])) == 1


async def test_delisted_is_not_found_until_it_is_listed_again(catalogue):
    """Delisting is all or none. A late price does not list a symbol again. An import does."""
    await fill(catalogue, *map(instrument, ["AAPL", "AAPX", "MSFT"]))
    traded = msgspec.structs.replace(
        opening_snapshot(instrument("AAPL")), last_quote=101.5, version=7, volume=300, quoted_at=5
    )
    await catalogue.save([traded], ["AAPL"])
    assert await catalogue.delist(["AAPL", "NOPE"]) == ["NOPE"]
    assert await catalogue.find(["AAPL"]) == [traded]
    assert await catalogue.delist(["AAPL", "MSFT"]) == []
    assert await catalogue.delist(["AAPL"]) == ["AAPL"]
    later = msgspec.structs.replace(traded, last_quote=102.0, version=8)
    await catalogue.save([later], ["AAPL"])
    assert [row.symbol for row in await catalogue.page("", 10)] == ["AAPX"]
    assert [row.symbol for row in await catalogue.search("aap", 10)] == ["AAPX"]
    assert await catalogue.find(["AAPL", "MSFT"]) == []
    assert await catalogue.recently_watched(10) == []
    await fill(catalogue, instrument("AAPL"))
    assert await catalogue.find(["AAPL"]) == [later]


async def test_changes_are_told_from_a_mark_on(catalogue):
    """Listing, renaming, delisting and a first price are changes. A later price is not."""
    await fill(catalogue, *map(instrument, ["AAPL", "MSFT", "OLD"]))
    mark, nothing = await catalogue.changes(None)
    assert nothing == []
    assert (await catalogue.changes(mark))[1] == []
    row = opening_snapshot(instrument("AAPL"))
    await catalogue.save([msgspec.structs.replace(row, version=2, last_quote=1.0)], ["AAPL"])
    assert (await catalogue.changes(mark))[1] == []
    await fill(catalogue, instrument("MSFT", "Microsoft"))
    await catalogue.delist(["OLD"])
    await catalogue.save([opening_snapshot(instrument("NEW"))], [])
    next_mark, changes = await catalogue.changes(mark)
    assert {(each.symbol, each.delisted) for each in changes} == {
        ("MSFT", False),
        ("OLD", True),
        ("NEW", False),
    }
    assert set((await catalogue.changes(mark))[1]) == set(changes)
    assert set((await catalogue.changes(next_mark))[1]) <= set(changes)
    await fill(catalogue, instrument("AAPL", "Apple"))
    last_mark, changes = await catalogue.changes(next_mark)
    assert "AAPL" in {each.symbol for each in changes}
    assert {each.symbol for each in (await catalogue.changes(last_mark))[1]} <= {"AAPL"}
    assert {each[:2] for each in (await catalogue.changes(None))[1]} == {("OLD", True)}


TABLE = (
    "CREATE TABLE market_data (id {id} PRIMARY KEY, symbol varchar(50) NOT NULL UNIQUE, "
    "name {name} NOT NULL, category integer NOT NULL, last_quote numeric NOT NULL)"
)

KEEPER = (
    "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$; "
    "CREATE TRIGGER keep BEFORE UPDATE ON market_data FOR EACH ROW EXECUTE FUNCTION keep()"
)


@pytest.mark.parametrize(
    ("table", "after", "expected"),
    [
        (TABLE.format(id="serial", name="char(40)"), "SELECT 1", ["A"]),
        (TABLE.format(id="uuid DEFAULT gen_random_uuid()", name="varchar(200)"), "SELECT 1", ["A"]),
        (TABLE.format(id="serial", name="varchar(200)"), KEEPER, []),
    ],
)
async def test_unusual_tables(shared_postgres, database, table, after, expected):
    """Another service may have made the table, or keep its rows as they are: a search ends."""
    row = "INSERT INTO market_data (symbol, name, category, last_quote) VALUES ('A', 'Apple', 1, 5)"
    await trio.to_thread.run_sync(shared_postgres.sql, table, database)
    url = shared_postgres.url(database)
    async with trio_asyncio.open_loop(), open_postgres(url, 4, StoreStats()) as catalogue:
        await catalogue.migrate()
        await trio.to_thread.run_sync(shared_postgres.sql, f"{after}; {row}", database)
        with trio.fail_after(TIMEOUT):
            found = [each.symbol for each in await catalogue.search("apple", 20)]
    assert found == expected


async def test_marks_of_another_cluster_are_no_changes(shared_postgres, database):
    """After a dump was restored into a younger cluster, only what changes there is told."""
    url = shared_postgres.url(database)
    async with trio_asyncio.open_loop(), open_postgres(url, 4, StoreStats()) as catalogue:
        await catalogue.migrate()
        await fill(catalogue, *map(instrument, ["AAPL", "MSFT"]))
        old = "UPDATE market_data SET changed_in = 10 ^ 12"
        await trio.to_thread.run_sync(shared_postgres.sql, old, database)
        mark, _ = await catalogue.changes(None)
        assert (await catalogue.changes(mark))[1] == []
        await fill(catalogue, instrument("AAPL", "Apple"))
        assert {each.symbol for each in (await catalogue.changes(mark))[1]} == {"AAPL"}


@pytest.mark.parametrize("error", [TimeoutError(), asyncio.CancelledError(), OSError("gone")])
def test_each_error_has_a_reason(error):
    """A log line with an empty problem would help nobody."""
    assert reason_of(error) in ("TimeoutError", "CancelledError", "gone")


async def test_writers_do_not_wait_for_each_other(shared_postgres, database):
    """All writers lock rows in the order of symbols, in any order of their arguments."""
    url = shared_postgres.url(database)
    async with trio_asyncio.open_loop(), open_postgres(url, 4, StoreStats()) as catalogue:
        await catalogue.migrate()
        for symbol in "BA":
            await fill(catalogue, instrument(symbol))
        later = [
            msgspec.structs.replace(opening_snapshot(instrument(symbol)), version=9)
            for symbol in "BA"
        ]
        lock = "UPDATE market_data SET last_quote = 7 WHERE symbol = '{}'"
        importing = f"BEGIN; {lock.format('A')}; SELECT pg_sleep(0.3); {lock.format('B')}; COMMIT"
        for write in (
            partial(catalogue.save, [], ["B", "A"]),
            partial(catalogue.save, later, []),
            partial(fill, catalogue, instrument("B"), instrument("A")),
            partial(catalogue.delist, ["B", "A"]),
        ):
            with trio.fail_after(TIMEOUT):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(
                        trio.to_thread.run_sync, shared_postgres.sql, importing, database
                    )
                    await trio.to_thread.run_sync(
                        eventually, lambda: shared_postgres.sql(IN_PROGRESS, database) == "1"
                    )
                    await write()


async def test_change_that_takes_long_is_not_missed(shared_postgres, database):
    """A transaction that began before a mark and ends after it is found by the next look."""
    url = shared_postgres.url(database)
    async with trio_asyncio.open_loop(), open_postgres(url, 4, StoreStats()) as catalogue:
        await catalogue.migrate()
        await fill(catalogue, *map(instrument, ["AAPL", "MSFT"]))
        # Long enough for the mark to be taken meanwhile, even on a busy machine.
        slow = "UPDATE market_data SET name = 'Apple' WHERE symbol = 'AAPL'; SELECT pg_sleep(2);"
        with trio.fail_after(TIMEOUT):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(
                    trio.to_thread.run_sync, shared_postgres.sql, f"BEGIN; {slow} COMMIT", database
                )
                await trio.to_thread.run_sync(
                    eventually, lambda: shared_postgres.sql(IN_PROGRESS, database) == "1"
                )
                await fill(catalogue, instrument("MSFT", "Microsoft"))
                mark, _ = await catalogue.changes(None)
            assert "AAPL" in {each.symbol for each in (await catalogue.changes(mark))[1]}


async def test_instrument_without_a_price(catalogue):
    """Its first price becomes the base price. An import without a price takes none away."""
    waiting = Instrument(symbol="NEW", name="Newcomer", base_price=None, price_decimals=4)
    await fill(catalogue, waiting, instrument("OLD", price=5.125))
    [row] = await catalogue.find(["NEW"])
    assert row == opening_snapshot(waiting)
    assert (row.base_price, row.price, row.last_quote) == (None, None, 0)
    assert (await catalogue.search("newcomer", 5)) == [row]
    for version, price in ((2, 7.5), (3, 8.0)):
        traded = msgspec.structs.replace(
            row, base_price=price, last_quote=price, version=version, quoted_at=version
        )
        await catalogue.save([traded], [])
    [row] = await catalogue.find(["NEW"])
    assert (row.base_price, row.last_quote, row.version) == (7.5, 8.0, 3)
    again = msgspec.structs.replace(waiting, name="Renamed", price_decimals=2)
    await fill(catalogue, again, msgspec.structs.replace(again, symbol="OLD"))
    rows = {row.symbol: row for row in await catalogue.find(["NEW", "OLD"])}
    assert {row.name for row in rows.values()} == {"Renamed"}
    assert (rows["NEW"].base_price, rows["NEW"].last_quote) == (7.5, 8.0)
    assert rows["NEW"].price_decimals == 4
    assert (rows["OLD"].base_price, rows["OLD"].last_quote) == (5.125, 5.125)
    await fill(catalogue, instrument("NEW", price=9.0))
    [row] = await catalogue.find(["NEW"])
    assert (row.base_price, row.last_quote, row.version) == (9.0, 8.0, 3)
