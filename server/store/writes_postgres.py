"""The statements that write to the catalogue in Postgres, each on one connection of asyncpg."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from server.quotes.snapshot import Snapshot
from server.store.catalogue import BATCH_ROWS
from server.store.renaming import (
    EMPTY_BARS,
    FORWARD,
    LIST_AGAIN,
    SET_SYMBOL,
    Found,
    begun_minute,
    listed,
    rows_after,
    symbol_changes,
)
from server.store.rows import Rows
from server.store.search import name_words
from server.store.sql import FIELDS
from server.store.sql_postgres import (
    BEGIN_ANEW,
    INDEX_WORDS,
    LOCK,
    NOT_INDEXED,
    REPLACE,
    SAVE,
    SELECTED,
    WATCHED,
)

Connection = Any
"""A connection of the pool; asyncpg has no types."""


async def index_names(connection: Connection) -> None:
    """Index the words of names that any program wrote since they were indexed last.

    Rows that another transaction holds are left to the next search.
    """
    batch = f'{NOT_INDEXED} ORDER BY symbol COLLATE "C" LIMIT {BATCH_ROWS} FOR UPDATE SKIP LOCKED'
    before: list[str] = []
    while True:
        async with connection.transaction():
            rows = await connection.fetch(batch)
            symbols = [row["symbol"] for row in rows]
            # Another service's trigger may keep the rows as they were.
            if not rows or symbols == before:
                return
            words = [" ".join(name_words(row["name"] or "")) for row in rows]
            await connection.execute(INDEX_WORDS, symbols, words)
        before = symbols


async def upsert(
    statement: str, rows: Iterable[Snapshot], done: Callable[[int], None], connection: Connection
) -> None:
    """List instruments with `statement`, LIST or BEGIN_ANEW."""
    rows = _in_order(rows)
    async with connection.transaction():
        for start in range(0, len(rows), BATCH_ROWS):
            batch = rows[start : start + BATCH_ROWS]
            await connection.execute(statement, *_columns(batch))
            if statement == BEGIN_ANEW:
                await _empty_bars(batch, connection)
            done(start + len(batch))
        await index_names(connection)


async def delist(symbols: Sequence[str], connection: Connection) -> list[str]:
    """Delist symbols, all or none. Return those that are not listed."""
    async with connection.transaction():
        present = {row["symbol"] for row in await connection.fetch(LOCK, symbols)}
        missing = [symbol for symbol in symbols if symbol not in present]
        if not missing:
            update = "UPDATE market_data SET delisted = true WHERE symbol = ANY($1)"
            await connection.execute(update, symbols)
    return missing


async def save(
    snapshots: Sequence[Snapshot], watched: Sequence[str], connection: Connection
) -> None:
    """Write last prices, and note which symbols are watched."""
    await connection.execute(SAVE, *_columns(_in_order(snapshots)))
    if watched:
        await connection.execute(WATCHED, watched)


def _in_order(rows: Iterable[Snapshot]) -> list[Snapshot]:
    """Sort rows by symbol, as `LOCK` does."""
    return sorted(rows, key=lambda row: row.symbol)


def _columns(rows: Sequence[Snapshot]) -> list[list[Any]]:
    return [[getattr(row, field) for row in rows] for field in FIELDS]


async def adjust(
    rows: Rows, symbol: str, change: Callable[[Snapshot], Snapshot], connection: Connection
) -> Snapshot:
    """Replace a listed row by the result of `change`. Errors: ChangeRefused, and those of `change`."""
    async with connection.transaction():
        after = change(listed(symbol, await _lock(rows, [symbol], connection)))
        await connection.execute(REPLACE, *_columns([after]))
    return after


async def rename(rows: Rows, old: str, new: str, connection: Connection) -> None:
    """Give a listed instrument another symbol. Errors: ChangeRefused."""
    async with connection.transaction():
        found = await _lock(rows, [old, new], connection)
        after = rows_after(old, new, found)
        for symbols in symbol_changes(old, new, found):
            await connection.execute(SET_SYMBOL, *symbols)
        await connection.execute(REPLACE, *_columns(after))
        await _empty_bars(after[1:], connection)
        await connection.execute(LIST_AGAIN, new)
        await connection.execute(FORWARD, new, old)


async def _empty_bars(rows: Sequence[Snapshot], connection: Connection) -> None:
    """Take the trades of an earlier instrument out of the bars of the minute in which rows begin."""
    among = "instrument IN (SELECT id FROM market_data WHERE symbol = ANY($1::varchar[]))"
    symbols, begun = [row.symbol for row in rows], min(map(begun_minute, rows))
    await connection.execute(f"{EMPTY_BARS} {among} AND minute >= $2", symbols, begun)


async def _lock(rows: Rows, symbols: Sequence[str], connection: Connection) -> dict[str, Found]:
    """Return rows that no other transaction can change before the end of this one."""
    query = f"""SELECT {SELECTED}, delisted FROM market_data WHERE symbol = ANY($1)
        ORDER BY symbol COLLATE "C" FOR UPDATE"""
    found = {}
    for *row, delisted in await connection.fetch(query, symbols):
        snapshots = rows.snapshots([row])
        found[str(row[0])] = Found(delisted, snapshots[0] if snapshots else None)
    return found
