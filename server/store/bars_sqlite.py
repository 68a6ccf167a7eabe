"""The bars in SQLite: one table in the order of symbols and minutes."""

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from server.history.bar import MinuteBar
from server.store.bars import (
    COLUMNS,
    FIRST_MINUTE,
    LAST_MINUTE,
    MINUTES,
    ON_CONFLICT,
    SLOTS,
    TOTALS,
    Key,
    Wanted,
    bars_of,
    rows_of,
)
from server.store.writes_sqlite import transaction

DELETED_ROWS = 1000
"""Rows of one deletion: some 5 ms of the only connection that writes."""

_INSERT = f"""
INSERT INTO minute_bars (instrument, {", ".join(COLUMNS)})
SELECT listed.id, {", ".join(f"?{number}" for number in range(2, len(COLUMNS) + 2))}
FROM market_data AS named
JOIN market_data AS listed ON listed.symbol = coalesce(named.renamed_to, named.symbol)
WHERE named.symbol = ?1
{ON_CONFLICT}
"""

_FIND = f"""
SELECT named.symbol, {MINUTES} FROM json_each(?) AS wanted
JOIN market_data AS named ON named.symbol = json_extract(wanted.value, '$[0]')
JOIN market_data AS listed ON listed.symbol = coalesce(named.renamed_to, named.symbol)
JOIN minute_bars ON instrument = listed.id AND minute = json_extract(wanted.value, '$[1]')
"""

_KEPT = """
instrument = (SELECT id FROM market_data WHERE symbol = :symbol)
    AND (:all OR minute NOT IN (SELECT value FROM json_each(:without)))
"""

_MINUTES = f"""
SELECT :symbol, {MINUTES} FROM minute_bars
WHERE minute >= :first AND minute < :end AND count > 0 AND {_KEPT} ORDER BY minute %s LIMIT :limit
"""

_SLOTS = f"""
WITH totals AS (
    SELECT instrument, :start + (minute - :start) / :size * :size AS slot, {TOTALS}
    FROM minute_bars WHERE minute >= :first AND minute < :end AND {_KEPT} GROUP BY %s
)
SELECT :symbol, {SLOTS} FROM totals
JOIN minute_bars AS opened
    ON opened.instrument = totals.instrument AND opened.minute = {FIRST_MINUTE}
JOIN minute_bars AS closed
    ON closed.instrument = totals.instrument AND closed.minute = {LAST_MINUTE}
ORDER BY slot %s LIMIT :limit
"""
"""The bars that are counted from one start. Each start is one search in the table's order."""

_OPEN = f"""
SELECT symbol, {MINUTES} FROM market_data CROSS JOIN minute_bars ON instrument = id
WHERE revision < 0 AND minute IN (
    SELECT minute FROM minute_bars WHERE instrument = id ORDER BY minute DESC LIMIT 2
)
"""

_DELETE = f"""
DELETE FROM minute_bars WHERE (instrument, minute) IN (
    WITH RECURSIVE kept(id) AS (
        SELECT min(instrument) FROM minute_bars UNION ALL
        SELECT (SELECT min(instrument) FROM minute_bars WHERE instrument > id)
        FROM kept WHERE id NOT NULL
    )
    SELECT instrument, minute FROM kept CROSS JOIN minute_bars ON instrument = id
    WHERE minute < ? LIMIT {DELETED_ROWS}
)
"""
"""It looks into each instrument's oldest rows, and does not read the others."""

Run = Callable[[str, Callable[[sqlite3.Connection], Any]], Awaitable[Any]]
"""Does a named piece of work in the thread of a connection."""


class SqliteBars:
    """See `BarTables`. Reads have a connection of their own, as a long one would delay look-ups."""

    def __init__(self, read: Run, write: Run) -> None:
        self._read = read
        self._write = write

    async def write(self, bars: Sequence[MinuteBar]) -> list[str]:
        unlisted: list[str] = await self._write("save_bars", partial(_insert, bars))
        return unlisted

    async def read(self, wanted: Wanted) -> list[MinuteBar]:
        return bars_of(await self._read("bars", partial(_rows, wanted)))

    async def find(self, keys: Sequence[Key]) -> list[MinuteBar]:
        encoded = [msgspec.json.encode(keys).decode()]
        return bars_of(
            await self._read("find_bars", lambda db: db.execute(_FIND, encoded).fetchall())
        )

    async def open_bars(self) -> list[MinuteBar]:
        return bars_of(await self._read("open_bars", lambda db: db.execute(_OPEN).fetchall()))

    async def delete(self, before: int) -> int:
        count: int = await self._write(
            "delete_bars", lambda db: db.execute(_DELETE, [before]).rowcount
        )
        return count

    async def tidy(self, now: int) -> None:
        """Do nothing, as the table is always in order."""


def _rows(wanted: Wanted, connection: sqlite3.Connection) -> list[Any]:
    order = "DESC" if wanted.descending else "ASC"
    parameters = wanted._asdict() | {
        "without": msgspec.json.encode(wanted.without).decode(),
        "all": not wanted.without,
    }
    if wanted.size == 1:
        return connection.execute(_MINUTES % order, parameters).fetchall()
    # With one statement for all days, SQLite would sort all their minutes: thrice the time.
    found: list[Any] = []
    # A group by `slot` is sorted, so a part that is one bar has another group.
    query = _SLOTS % ("instrument" if wanted.is_whole else "slot", order)
    for start, end in reversed(wanted.parts) if wanted.descending else wanted.parts:
        parameters |= {
            "start": start,
            "first": max(start, wanted.first),
            "end": min(end, wanted.end),
            "limit": wanted.limit - len(found),
        }
        found += connection.execute(query, parameters)
        if len(found) == wanted.limit:
            break
    return found


def _insert(bars: Sequence[MinuteBar], connection: sqlite3.Connection) -> list[str]:
    symbols = sorted({each.symbol for each in bars})
    with transaction(connection):
        connection.executemany(_INSERT, rows_of(bars))
        listed = connection.execute(
            "SELECT symbol FROM market_data WHERE symbol IN (SELECT value FROM json_each(?))",
            [msgspec.json.encode(symbols).decode()],
        )
        return sorted({*symbols} - {symbol for (symbol,) in listed})
