"""The statements that write to the SQLite catalogue, each in the thread of its connection."""

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

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
from server.store.sql import COLUMNS, FIELDS, on_conflict

_MADE_UP = FIELDS.index("made_up_price")

_VALUES = ", ".join(f":{field}" for field in FIELDS)

_INSERT = f"INSERT INTO market_data ({COLUMNS}) VALUES ({_VALUES}) "

_ENDS = on_conflict()

LIST, BEGIN_ANEW = _INSERT + _ENDS.list, _INSERT + _ENDS.begin_anew
_REPLACE, SAVE = _INSERT + _ENDS.replace, _INSERT + _ENDS.save

NOT_INDEXED = f"SELECT id, name FROM market_data WHERE words_of IS NOT name LIMIT {BATCH_ROWS}"


def write(
    statement: str,
    rows: Sequence[Snapshot],
    watched: Sequence[str],
    done: Callable[[int], None],
    connection: sqlite3.Connection,
) -> None:
    """Write rows with one of the INSERTs above, all or none, and note which symbols are watched."""
    with transaction(connection):
        for start in range(0, len(rows), BATCH_ROWS):
            batch = rows[start : start + BATCH_ROWS]
            insert(statement, batch, connection)
            if statement == BEGIN_ANEW:
                _empty_bars(batch, connection)
            done(start + len(batch))
        if statement in (LIST, BEGIN_ANEW):
            index_unindexed(connection)
        now = time.time()
        connection.executemany(
            "UPDATE market_data SET watched_at = ? WHERE symbol = ?",
            [(now, symbol) for symbol in watched],
        )


def delist(symbols: Sequence[str], connection: sqlite3.Connection) -> list[str]:
    """Delist symbols, all or none. Return those that are not listed."""
    encoded = [msgspec.json.encode(symbols).decode()]
    among = "symbol IN (SELECT value FROM json_each(?)) AND NOT delisted"
    with transaction(connection):
        rows = connection.execute(f"SELECT symbol FROM market_data WHERE {among}", encoded)
        present = {symbol for (symbol,) in rows}
        missing = [symbol for symbol in symbols if symbol not in present]
        if not missing:
            connection.execute(f"UPDATE market_data SET delisted = 1 WHERE {among}", encoded)
    return missing


def insert(statement: str, rows: Iterable[Snapshot], connection: sqlite3.Connection) -> None:
    """Write rows within a transaction."""
    connection.executemany(
        statement, ({field: getattr(row, field) for field in FIELDS} for row in rows)
    )


def index_names(connection: sqlite3.Connection) -> None:
    """Index names in a transaction of their own."""
    with transaction(connection):
        index_unindexed(connection)


def index_unindexed(connection: sqlite3.Connection) -> None:
    """Index the words of names that any program wrote since they were indexed last."""
    while rows := connection.execute(NOT_INDEXED).fetchall():
        ids = [(number,) for number, _ in rows]
        connection.executemany("DELETE FROM name_words WHERE id = ?", ids)
        connection.executemany(
            "INSERT INTO name_words (word, id) VALUES (?, ?)",
            # A name that is not text is left out of every result, too.
            ((word, n) for n, name in rows if isinstance(name, str) for word in name_words(name)),
        )
        connection.executemany("UPDATE market_data SET words_of = name WHERE id = ?", ids)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit all or nothing. It takes the write lock first: only that wait honours the timeout."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def fields_of(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Replace the integer of `made_up_price` by a bool, which SQLite does not have."""
    flag = row[_MADE_UP]
    return (*row[:_MADE_UP], bool(flag) if flag in (0, 1) else flag, *row[_MADE_UP + 1 :])


def adjust(
    rows: Rows, symbol: str, change: Callable[[Snapshot], Snapshot], connection: sqlite3.Connection
) -> Snapshot:
    """Replace a listed row by the result of `change`. Errors: ChangeRefused, and those of `change`."""
    with transaction(connection):
        after = change(listed(symbol, _find(rows, [symbol], connection)))
        insert(_REPLACE, [after], connection)
    return after


def rename(rows: Rows, old: str, new: str, connection: sqlite3.Connection) -> None:
    """Give a listed instrument another symbol. Errors: ChangeRefused."""
    with transaction(connection):
        found = _find(rows, [old, new], connection)
        after = rows_after(old, new, found)
        for symbols in symbol_changes(old, new, found):
            _execute(SET_SYMBOL, *symbols, connection=connection)
        insert(_REPLACE, after, connection)
        _empty_bars(after[1:], connection)
        _execute(LIST_AGAIN, new, connection=connection)
        _execute(FORWARD, new, old, connection=connection)


def _empty_bars(rows: Sequence[Snapshot], connection: sqlite3.Connection) -> None:
    """Take the trades of an earlier instrument out of the bars of the minute in which rows begin."""
    connection.executemany(
        f"{EMPTY_BARS} instrument = (SELECT id FROM market_data WHERE symbol = ?) AND minute >= ?",
        ((row.symbol, begun_minute(row)) for row in rows),
    )


def _find(rows: Rows, symbols: Sequence[str], connection: sqlite3.Connection) -> dict[str, Found]:
    query = f"SELECT {COLUMNS}, delisted FROM market_data WHERE symbol = ?"
    found = {}
    for symbol in symbols:
        for *row, delisted in connection.execute(query, [symbol]).fetchall():
            snapshots = rows.snapshots([fields_of(tuple(row))])
            found[symbol] = Found(bool(delisted), snapshots[0] if snapshots else None)
    return found


def _execute(statement: str, *values: str, connection: sqlite3.Connection) -> None:
    """Run a statement with the parameters `$1`, `$2`, as Postgres has them."""
    parameters = {str(number): value for number, value in enumerate(values, 1)}
    connection.execute(statement, parameters)
