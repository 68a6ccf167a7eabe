"""The bars in Postgres: one table, partitioned by months of UTC.

Rows come in the order of time, so the rows of one symbol lie far apart. When a month is over, `tidy`
rewrites its partition in the order of symbols. Then a year of one symbol lies on some thousand pages,
not on a hundred thousand.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

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

Connection = Any
"""A connection of the pool; asyncpg has no types."""

READ_TIMEOUT = 2.0
"""Seconds for one read or write, as for the catalogue's statements."""

TIDY_TIMEOUT = 120.0
"""Seconds to rewrite or drop a month."""

PARTITION_LOCK = int.from_bytes(b"bars")
"""Key of the advisory lock: instances make and drop partitions one after the other."""

LOCK_TIMEOUT = "1s"
"""The longest wait for the lock that stops all reads of bars for a moment. The next try comes later."""

PREFIX = "minute_bars_"
"""Partitions are named by their month: `minute_bars_2026_11`."""

TIDY = "in the order of symbols"
"""The comment on a partition that `tidy` has rewritten."""

MONTHS_AHEAD = 2
"""Months after the present one that have a partition ahead of their time."""

LATE_MINUTES = 60
"""Minutes after its end at which a month is rewritten. Later trades are welcome, but not in order."""

_IS_OWNER = """
SELECT pg_has_role(relowner, 'USAGE') AND has_schema_privilege(relnamespace, 'CREATE')
FROM pg_class WHERE oid = to_regclass('minute_bars')
"""

_TYPES = ("varchar", "int", *("float8",) * 5, "int", "float8", "int", "int", "int")

_NEW = ", ".join(f"${number}::{each}[]" for number, each in enumerate(_TYPES, 1))

_LISTED = """
JOIN market_data AS named ON named.symbol = new.symbol
JOIN market_data AS listed ON listed.symbol = coalesce(named.renamed_to, named.symbol)
"""
"""The rows of instruments. Bars that came under the old symbol are those of the renamed instrument."""

_INSERT = f"""
INSERT INTO minute_bars (instrument, {", ".join(COLUMNS)})
SELECT DISTINCT ON (listed.id, new.minute)
    listed.id, {", ".join(f"new.{each}" for each in COLUMNS)}
FROM unnest({_NEW}) AS new(symbol, {", ".join(COLUMNS)}) {_LISTED}
ORDER BY listed.id, new.minute, new.revision DESC
{ON_CONFLICT}
"""

_FIND = f"""
SELECT new.symbol, {MINUTES} FROM unnest($1::varchar[], $2::int[]) AS new(symbol, wanted) {_LISTED}
JOIN minute_bars ON instrument = listed.id AND minute = wanted
"""

_UNLISTED = """
SELECT DISTINCT symbol FROM unnest($1::varchar[]) AS new(symbol)
WHERE NOT EXISTS (SELECT FROM market_data WHERE market_data.symbol = new.symbol)
"""


def _look_up(minute: str) -> str:
    """Return SQL for one bar. OFFSET keeps Postgres from another plan, which reads the whole table as
    long as it has no statistics.
    """
    return f"""SELECT * FROM minute_bars
        WHERE minute_bars.instrument = totals.instrument AND minute = {minute} OFFSET 0"""


_SLOTS = f"""
WITH days AS (
    SELECT start, greatest(start, $2) AS first,
        least(lead(start, 1, $3::int) OVER (ORDER BY start), $3) AS next
    FROM unnest($6::int[]) AS start
), totals AS (
    SELECT (SELECT id FROM market_data WHERE symbol = $1::varchar) AS instrument, day.*
    FROM days CROSS JOIN LATERAL (
        SELECT %s AS slot, {TOTALS}
        FROM minute_bars WHERE instrument = (SELECT id FROM market_data WHERE symbol = $1::varchar)
            AND minute >= first AND minute < next AND minute <> ALL($4::int[])
        %s
    ) AS day
)
SELECT $1::varchar, {SLOTS} FROM totals
CROSS JOIN LATERAL ({_look_up(FIRST_MINUTE)}) AS opened
CROSS JOIN LATERAL ({_look_up(LAST_MINUTE)}) AS closed
ORDER BY slot %s LIMIT $5
"""
"""Each day is one search in the index: sorting all minutes of a year would use the disk.

It lacks the start of a bar, the grouping and the order.
"""

_WHOLE = "start", ""
"""The start and grouping if each part is one bar. Groups would take 1.4 times the time."""

_GROUPED = "start + (minute - start) / $7 * $7", "GROUP BY 1"

_MINUTES = f"""
SELECT $1::varchar, {MINUTES}
FROM minute_bars WHERE instrument = (SELECT id FROM market_data WHERE symbol = $1::varchar)
    AND minute >= $2 AND minute < $3 AND minute <> ALL($4::int[]) AND count > 0
ORDER BY minute %s LIMIT $5
"""

_OPEN = f"""
SELECT symbol, {MINUTES} FROM market_data CROSS JOIN LATERAL (
    SELECT * FROM minute_bars WHERE instrument = id ORDER BY minute DESC LIMIT 2
) AS minute_bars WHERE revision < 0
"""

_PARTITIONS = """
SELECT relname FROM pg_inherits JOIN pg_class ON oid = inhrelid
WHERE inhparent = 'minute_bars'::regclass
    AND coalesce(obj_description(oid, 'pg_class'), 'none') <> $1
ORDER BY relname COLLATE "C"
"""

Run = Callable[[str, float, Callable[[Connection], Awaitable[Any]]], Awaitable[Any]]
"""Does a named piece of work within some seconds on a connection."""


class PostgresBars:
    """See `BarTables`. `run` is the catalogue's."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._months: set[str] = set()

    async def write(self, bars: Sequence[MinuteBar]) -> list[str]:
        unlisted: list[str] = await self._run("save_bars", READ_TIMEOUT, partial(self._write, bars))
        return unlisted

    async def read(self, wanted: Wanted) -> list[MinuteBar]:
        return bars_of(await self._run("bars", READ_TIMEOUT, partial(_read, wanted)))

    async def find(self, keys: Sequence[Key]) -> list[MinuteBar]:
        symbols, minutes = [each for each, _ in keys], [each for _, each in keys]
        return bars_of(
            await self._run("find_bars", READ_TIMEOUT, lambda db: db.fetch(_FIND, symbols, minutes))
        )

    async def open_bars(self) -> list[MinuteBar]:
        return bars_of(await self._run("open_bars", TIDY_TIMEOUT, lambda db: db.fetch(_OPEN)))

    async def delete(self, before: int) -> int:
        months = [each for each in await self._present() if _bounds(each)[1] <= before]
        if months:
            await self._run("delete_bars", READ_TIMEOUT, partial(_drop, months[0]))
        return len(months)

    async def tidy(self, now: int) -> None:
        await self._run("make_bar_months", READ_TIMEOUT, partial(make_months_ahead, now))
        for month in await self._present(TIDY):
            if _bounds(month)[1] <= now - LATE_MINUTES:
                await self._run("tidy_bars", TIDY_TIMEOUT, partial(_rewrite, month))

    async def _present(self, without: str = "") -> list[str]:
        """Return the months that have a partition without this comment, the earliest first."""
        fetch = partial(_fetch_months, without)
        months: list[str] = await self._run("bar_months", READ_TIMEOUT, fetch)
        return months

    async def _write(self, bars: Sequence[MinuteBar], connection: Connection) -> list[str]:
        months = {month_of(each.minute) for each in bars} - self._months
        if months:
            await make_partitions(months, connection)
            self._months |= months
        columns = list(zip(*rows_of(bars), strict=True))
        async with connection.transaction():
            unlisted = await connection.fetch(_UNLISTED, columns[0])
            await connection.execute(_INSERT, *columns)
        return [symbol for (symbol,) in unlisted]


async def _read(wanted: Wanted, connection: Connection) -> list[Any]:
    order = "DESC" if wanted.descending else "ASC"
    bounds = (wanted.symbol, wanted.first, wanted.end, wanted.without, wanted.limit)
    if wanted.size == 1:
        minutes: list[Any] = await connection.fetch(_MINUTES % order, *bounds)
        return minutes
    async with connection.transaction():
        # Postgres expects a large result, and would compile for four seconds what takes a tenth.
        await connection.execute("SET LOCAL jit = off")
        if wanted.is_whole:
            query = _SLOTS % (*_WHOLE, order)
            whole: list[Any] = await connection.fetch(query, *bounds, wanted.starts)
            return whole
        query = _SLOTS % (*_GROUPED, order)
        slots: list[Any] = await connection.fetch(query, *bounds, wanted.starts, wanted.size)
    return slots


async def make_partitions(months: Iterable[str], connection: Connection) -> None:
    """Make the partitions of months such as `2026_11` that do not exist."""
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", PARTITION_LOCK)
        present = await _fetch_months("", connection)
        for month in sorted({*months} - {*present}):
            await _make(month, PREFIX + month, connection)
            # Unlike CREATE ... PARTITION OF, this lets others read and write meanwhile.
            await _attach(month, connection)


async def make_months_ahead(now: int, connection: Connection) -> None:
    """Make the partition of the minute `now` and the next ones, if this role may."""
    if await connection.fetchval(_IS_OWNER):
        months = [month_of(now)]
        while len(months) <= MONTHS_AHEAD:
            months.append(month_of(_bounds(months[-1])[1]))
        await make_partitions(months, connection)


async def _fetch_months(without: str, connection: Connection) -> list[str]:
    rows = await connection.fetch(_PARTITIONS, without)
    return [name.removeprefix(PREFIX) for (name,) in rows]


async def _drop(month: str, connection: Connection) -> None:
    async with connection.transaction():
        await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        await connection.execute(f"DROP TABLE IF EXISTS {PREFIX}{month}")


async def _rewrite(month: str, connection: Connection) -> None:
    """Replace a month's partition by a copy in the order of symbols. Reads go on until the exchange."""
    old, new = PREFIX + month, f"ordered_{PREFIX}{month}"
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", PARTITION_LOCK)
        await connection.execute(f"LOCK TABLE {old} IN SHARE ROW EXCLUSIVE MODE")
        await _make(month, new, connection)
        await connection.execute(
            f"INSERT INTO {new} SELECT * FROM {old} ORDER BY instrument, minute"
        )
        await connection.execute(f"COMMENT ON TABLE {new} IS '{TIDY}'")
        await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        await connection.execute(f"ALTER TABLE minute_bars DETACH PARTITION {old}")
        await connection.execute(f"DROP TABLE {old}")
        await connection.execute(f"ALTER TABLE {new} RENAME TO {old}")
        await _attach(month, connection)


async def _make(month: str, name: str, connection: Connection) -> None:
    """Make a table for a month. With its CHECK, Postgres need not read the rows to attach it."""
    first, end = _bounds(month)
    await connection.execute(
        f"CREATE TABLE {name} (LIKE minute_bars INCLUDING ALL, "
        f"CHECK (minute >= {first} AND minute < {end}))"
    )


async def _attach(month: str, connection: Connection) -> None:
    first, end = _bounds(month)
    await connection.execute(
        f"ALTER TABLE minute_bars ATTACH PARTITION {PREFIX}{month} "
        f"FOR VALUES FROM ({first}) TO ({end})"
    )


def month_of(minute: int) -> str:
    """Return the month of a minute, in UTC, as partitions are named: `2026_11`."""
    return f"{datetime.fromtimestamp(minute * 60, UTC):%Y_%m}"


def _bounds(month: str) -> tuple[int, int]:
    """Return the first minute of a month, and that of the next."""
    year, number = map(int, month.split("_"))
    first = datetime(year, number, 1, tzinfo=UTC)
    end = first.replace(year=year + number // 12, month=number % 12 + 1)
    return int(first.timestamp()) // 60, int(end.timestamp()) // 60
