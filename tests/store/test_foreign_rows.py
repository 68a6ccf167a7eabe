"""Rows that another program may have written: invalid ones are left out, the rest is served."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

import msgspec
import pytest
import trio
import trio_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from server.quotes.instrument import LARGEST_WHOLE
from server.quotes.snapshot import Snapshot, opening_snapshot
from server.store.catalogue import RowsRefused
from server.store.catalogue_postgres import open_postgres
from server.store.catalogue_sqlite import MARKS_END, SqliteCatalogue, open_sqlite
from server.store.stats import StoreStats
from tests.store.conftest import TIMEOUT, fill, instrument

SYMBOLS = [f"S{number}" for number in range(9)]

COLUMNS = [*Snapshot.__struct_fields__, "words_of", "watched_at", "delisted", "changed_in"]

cells = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.binary(max_size=20),
    st.text(max_size=20),
    st.sampled_from([2**53 - 1, 2**53 - 2, 2**53 - 3, 2**53, 2**63 - 1, -1, float("inf")]),
).filter(lambda value: not isinstance(value, str) or value.isprintable())


def traded(symbol: str, version: int) -> Snapshot:
    row = opening_snapshot(instrument(symbol))
    return msgspec.structs.replace(row, version=version, last_quote=float(version), quoted_at=1)


@contextmanager
def spoiling(path) -> Iterator[sqlite3.Connection]:
    """Open a connection for another program's writes to the file."""
    with closing(sqlite3.connect(path)) as other, other:
        yield other


async def read_all(catalogue: SqliteCatalogue) -> set[str]:
    """Return the requested symbols that all ways of reading find. They must agree."""
    paged = {row.symbol for row in await catalogue.page("", 4)}
    found = {row.symbol for row in await catalogue.find(SYMBOLS)}
    assert {row.symbol for row in await catalogue.search("s", 20)} >= found
    assert len(paged) == 4
    await catalogue.recently_watched(10)
    return found


@given(st.lists(st.tuples(st.sampled_from(COLUMNS), cells), min_size=1, max_size=5))
@settings(max_examples=60)
def test_any_value_in_any_column_of_sqlite(tmp_path_factory, spoilt):
    """With any values in the first three rows, the others are found, changed and written."""
    path = tmp_path_factory.mktemp("sqlite") / "quotes.db"

    async def story() -> None:
        async with open_sqlite(path, (), StoreStats()) as catalogue:
            await catalogue.migrate()
            await fill(catalogue, *map(instrument, SYMBOLS))
            mark, _ = await catalogue.changes(None)
            with spoiling(path) as other:
                for number, (column, value) in enumerate(spoilt):
                    try:
                        other.execute(
                            f"UPDATE market_data SET {column} = ? WHERE symbol = ?",
                            [value, SYMBOLS[number % 3]],
                        )
                    except sqlite3.IntegrityError:
                        pass  # a constraint is in the way of what would spoil it
            sound = set(SYMBOLS[3:])
            assert await read_all(catalogue) >= sound
            mark, _ = await catalogue.changes(mark)
            await fill(catalogue, instrument("S8", "Another name"))
            mark, changes = await catalogue.changes(mark)
            assert "S8" in {change.symbol for change in changes}
            await fill(catalogue, instrument("S8", "A third name"))
            _, changes = await catalogue.changes(mark)
            assert "S8" in {change.symbol for change in changes}
            later = [traded(symbol, 7) for symbol in SYMBOLS]
            await catalogue.save(later, SYMBOLS)
            assert {row.symbol: row.version for row in await catalogue.find(SYMBOLS[3:])} == (
                dict.fromkeys(SYMBOLS[3:], 7)
            )
            await fill(catalogue, *map(instrument, SYMBOLS))  # as an operator does it
            assert await read_all(catalogue) >= sound

    trio.run(story)


async def test_rows_that_are_left_out_do_not_end_a_page(tmp_path):
    """Reading page by page gives all valid rows, behind any number of invalid ones in succession, also
    texts that are not UTF-8 and blobs. Each invalid row is counted.
    """
    path, stats = tmp_path / "quotes.db", StoreStats()
    async with open_sqlite(path, (), stats) as catalogue:
        await catalogue.migrate()
        await fill(catalogue, *(instrument(f"S{number:04}") for number in range(2500)))
        with spoiling(path) as other:
            other.execute(
                "UPDATE market_data SET volume = 'x' WHERE symbol BETWEEN 'S0001' AND 'S2300'"
            )
            other.execute(
                "UPDATE market_data SET symbol = CAST(x'53ff' AS TEXT) WHERE symbol = 'S2400'"
            )
            other.execute("UPDATE market_data SET symbol = x'ff' WHERE symbol = 'S2401'")
            other.execute(
                "UPDATE market_data SET name = CAST(x'ff' AS TEXT) WHERE symbol = 'S2402'"
            )
        met, after = list[str](), ""
        while page := await catalogue.page(after, 7):
            met += [row.symbol for row in page]
            after = met[-1]
        assert met == [
            "S0000",
            *(f"S{n}" for n in range(2301, 2500) if n not in (2400, 2401, 2402)),
        ]
        assert stats.invalid.counts["sqlite"] >= 2303
        assert len(await catalogue.page("", 1000)) == 197
        assert [row.symbol for row in await catalogue.page("S2499", 1)] == []
        assert [row.symbol for row in await catalogue.page("S0000", 1)] == ["S2301"]


async def test_marks_of_changes_begin_anew(tmp_path):
    """A mark at its limit does not hide later changes."""
    path = tmp_path / "quotes.db"
    async with open_sqlite(path, (), StoreStats()) as catalogue:
        await catalogue.migrate()
        await fill(catalogue, *map(instrument, SYMBOLS))
        for spoilt in (MARKS_END - 1, MARKS_END, 2**63 - 1, 1e300, "text", b"blob"):
            mark, _ = await catalogue.changes(None)
            with spoiling(path) as other:
                other.execute("UPDATE market_data SET changed_in = ? WHERE symbol = 'S0'", [spoilt])
            mark, _ = await catalogue.changes(mark)
            for name in (f"One {spoilt!r}", f"Two {spoilt!r}", f"Three {spoilt!r}"):
                await fill(catalogue, instrument("S5", name))
                mark, changes = await catalogue.changes(mark)
                assert "S5" in {change.symbol for change in changes}
                assert 0 < mark < 1000


@pytest.mark.parametrize("column", ["volume", "version", "quoted_at"])
async def test_price_that_cannot_be_is_overwritten(catalogue, tmp_path, request, column):
    """The next write-back or import overwrites an invalid price with any version."""
    if catalogue.name == "memory":
        return  # nobody else can write there
    await fill(catalogue, *map(instrument, SYMBOLS))
    await catalogue.save([traded("S0", 5), traded("S1", 5)], [])

    async def spoil() -> None:
        statement = f"UPDATE market_data SET {column} = {2**63 - 1} WHERE symbol IN ('S0', 'S1')"
        if catalogue.name == "sqlite":
            with spoiling(tmp_path / "quotes.db") as other:
                other.execute(statement)
        else:
            postgres, name = (
                request.getfixturevalue(each) for each in ("shared_postgres", "database")
            )
            await trio.to_thread.run_sync(postgres.sql, statement, name)

    await spoil()
    assert await catalogue.find(["S0", "S1"]) == []
    await catalogue.save([traded("S0", 6)], [])
    await fill(catalogue, instrument("S1"))
    found = {row.symbol: row.version for row in await catalogue.find(["S0", "S1"])}
    assert found == {"S0": 6, "S1": 1}


POSTGRES_ROWS = [
    ("volume", 2**63 - 1),
    ("volume", LARGEST_WHOLE + 1),
    ("volume", -1),
    ("version", 2**63 - 1),
    ("version", 0),
    ("quoted_at", 2**63 - 1),
    ("quoted_at", 253_402_300_800_000_000),
    ("quoted_at", -1),
    ("price_decimals", 32767),
    ("price_decimals", -32768),
    ("price_decimals", 13),
    ("category", -1),
    ("market_cap", 2**63 - 1),
    ("market_cap", -1),
    ("last_quote", "'NaN'"),
    ("last_quote", "'-Infinity'"),
    ("last_quote", "1e400"),
    ("last_quote", "-1e-400 - 1"),
    ("base_price", "'Infinity'"),
    ("base_price", "1e16000"),
    ("symbol", "'lower'"),
    ("symbol", "' B'"),
    ("symbol", "E'A\\nB'"),
    ("symbol", "'*'"),
]


async def test_rows_of_postgres_that_are_no_records(shared_postgres, database):
    """Each kind of invalid row is left out and counted. Numbers close to zero are valid."""
    stats = StoreStats()
    url = shared_postgres.url(database)
    async with trio_asyncio.open_loop(), open_postgres(url, 4, stats) as catalogue:
        await catalogue.migrate()
        good = [f"G{number:02}" for number in range(30)]
        bad = [f"B{number:02}" for number in range(len(POSTGRES_ROWS))]
        await fill(catalogue, *map(instrument, [*good, *bad]))
        statements = [
            f"UPDATE market_data SET {column} = {value} WHERE symbol = '{symbol}'"
            for symbol, (column, value) in zip(bad, POSTGRES_ROWS, strict=True)
        ]
        statements += ["UPDATE market_data SET last_quote = 1e-400 WHERE symbol = 'G00'"]
        await trio.to_thread.run_sync(shared_postgres.sql, "; ".join(statements), database)
        with trio.fail_after(TIMEOUT):
            assert [row.symbol for row in await catalogue.page("", 30)] == good
            assert stats.invalid.counts["postgres"] == len(bad)
            assert {row.symbol for row in await catalogue.find([*good, *bad])} == set(good)
            assert {row.symbol for row in await catalogue.search("inc", 100)} == set(good)
            await catalogue.changes(0)
            await catalogue.save([], ["lower", "G01"])
            assert await catalogue.recently_watched(10) == ["G01"]


async def test_columns_without_their_constraints(shared_postgres, database):
    """Another service's table may contain NULL."""
    stats = StoreStats()
    url = shared_postgres.url(database)
    async with trio_asyncio.open_loop(), open_postgres(url, 4, stats) as catalogue:
        await catalogue.migrate()
        await fill(catalogue, *map(instrument, SYMBOLS))
        columns = (
            "name",
            "category",
            "last_quote",
            "volume",
            "version",
            "made_up_price",
            "changed_in",
        )
        dropped = ", ".join(f"ALTER COLUMN {column} DROP NOT NULL" for column in columns)
        statements = [
            f"ALTER TABLE market_data {dropped}",
            "ALTER TABLE market_data DROP COLUMN words",
        ]
        statements += [
            f"UPDATE market_data SET {column} = NULL WHERE symbol = 'S{number}'"
            for number, column in enumerate(columns[:-1])
        ]
        await trio.to_thread.run_sync(shared_postgres.sql, "; ".join(statements), database)
        with trio.fail_after(TIMEOUT):
            assert [row.symbol for row in await catalogue.page("", 5)] == ["S6", "S7", "S8"]
            await catalogue.changes(0)


async def test_row_that_does_not_fit_is_refused(catalogue):
    """The error is RowsRefused and not a driver's."""
    if catalogue.name == "memory":
        return
    for field, value in (
        ("volume", 2**63),
        ("volume", 2**70),
        ("name", "\ud800"),
        ("last_quote", None),
    ):
        row = msgspec.structs.replace(traded("S0", 2), **{field: value})
        with pytest.raises(RowsRefused):
            await catalogue.save([row], [])
    await catalogue.save([traded("S0", 3)], ["S0"])
    assert [row.version for row in await catalogue.find(["S0"])] == [3]
