"""The catalogue in Postgres, through an asyncpg pool on the trio-asyncio loop.

Every statement runs in a task of the store (`DeadlineCalls`) and ends within QUERY_TIMEOUT. A
connection that does not answer is terminated: a frozen database cannot exhaust the pool.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from time import perf_counter
from typing import Any, TypeVar

import asyncpg
import trio
from trio_asyncio import aio_as_trio

from server.quotes.instrument import Instrument, normalize_symbol
from server.quotes.snapshot import Snapshot, opening_snapshot
from server.store.catalogue import (
    BATCH_ROWS,
    SEARCH_CANDIDATES,
    Change,
    PoolUse,
    RowsRefused,
    StoreMisconfigured,
    StoreUnavailable,
    words,
)
from server.store.deadline_calls import DeadlineCalls
from server.store.migrations import pending
from server.store.rows import Rows
from server.store.sql import (
    COLUMNS,
    FIELDS,
    ON_CONFLICT_LIST,
    ON_CONFLICT_SAVE,
    RECENTLY_WATCHED,
    SELECT_CHANGES,
)
from server.store.stats import StoreStats

Connection = Any
"""A connection of the pool; asyncpg has no types."""

CONNECT_TIMEOUT = 2.0
"""Seconds for a new connection, and for a place in the pool."""

QUERY_TIMEOUT = 2.0
"""Seconds for one statement; the loader's take milliseconds."""

BULK_TIMEOUT = 120.0
"""Seconds for a whole migration or import; 100,000 rows take some ten."""

CLOSE_TIMEOUT = 1.0
"""Seconds for a clean close of all connections at a shutdown. Then they are cut."""

WAITING_CALLS = 64
"""Calls in progress for each connection of the pool; more are refused at once."""

MIGRATION_LOCK = int.from_bytes(b"quote")
"""Key of the advisory lock: instances that start together migrate one after the other."""

ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
    ValueError,
    OverflowError,
)
"""asyncpg's errors when the database is at fault. If the server is down, asyncpg raises an OSError. If
Python cannot read a value, it raises a ValueError or OverflowError.
"""

REFUSALS = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.PLPGSQLError,
    ValueError,
    OverflowError,
)
"""Errors when a row is at fault: a value, a constraint or another service's trigger forbids it, or
asyncpg cannot send it.
"""


def _as_float(column: str) -> str:
    """Return SQL that gives NaN for a number outside a float's range.

    The plain cast would fail for it, and the whole query with it. Rounding is for numbers too close to
    zero, for which the cast fails as well.
    """
    rounded = f"round({column}::numeric, 100)::float8"
    return f"CASE WHEN {column} BETWEEN -1e300 AND 1e300 THEN {rounded} ELSE 'NaN'::float8 END"


_SELECTED = ", ".join(
    _as_float(field) if field in ("last_quote", "base_price") else field for field in FIELDS
)

_TYPES = {
    "symbol": "varchar",
    "name": "varchar",
    "category": "int",
    "last_quote": "float8",
    "base_price": "float8",
    "market_cap": "bigint",
    "price_decimals": "smallint",
    "made_up_price": "bool",
    "volume": "bigint",
    "version": "bigint",
    "quoted_at": "bigint",
}

_ROWS = ", ".join(f"${number}::{_TYPES[field]}[]" for number, field in enumerate(FIELDS, 1))

_INSERT = f"INSERT INTO market_data ({COLUMNS}) SELECT * FROM unnest({_ROWS}) "

_LOCK = """
SELECT id, symbol FROM market_data WHERE symbol = ANY($1) AND NOT delisted
ORDER BY symbol COLLATE "C" FOR UPDATE
"""
"""All writers lock rows in the order of symbols, so that two of them cannot deadlock."""

_WATCHED = f"""
WITH locked AS ({_LOCK})
UPDATE market_data SET watched_at = now() FROM locked WHERE market_data.id = locked.id
"""

_SEARCH = f"""
SELECT {_SELECTED} FROM (
    (SELECT *, CASE WHEN symbol = $1 THEN 0 ELSE 1 END AS rank FROM market_data
     WHERE NOT delisted AND $1 <> ''
     AND symbol COLLATE "C" >= $1 AND symbol COLLATE "C" < $1 || U&'\\+10FFFF'
     ORDER BY symbol COLLATE "C" LIMIT $4)
    UNION ALL
    (SELECT *, CASE WHEN lower(name) ~ $3 THEN 2 ELSE 3 END AS rank FROM market_data
     WHERE NOT delisted AND words @@ $2::text::tsquery AND NOT starts_with(symbol, $1)
     LIMIT {SEARCH_CANDIDATES})
) AS found ORDER BY rank, symbol COLLATE "C" LIMIT $4
"""

T = TypeVar("T")


class PostgresCatalogue:
    """See `Catalogue`. Made by `open_postgres`."""

    name = "postgres"

    def __init__(self, url: str, pool_size: int, stats: StoreStats) -> None:
        self._url = url
        self._stats = stats
        self._rows = Rows("postgres", stats.invalid)
        self.calls = DeadlineCalls(pool_size * WAITING_CALLS)
        self.pool = asyncpg.create_pool(
            url,
            min_size=0,
            max_size=pool_size,
            timeout=CONNECT_TIMEOUT,
            # The longest one; `_on_connection` sets the shorter ones.
            command_timeout=BULK_TIMEOUT,
            server_settings={"application_name": "quotestream"},
        )

    def pool_use(self) -> PoolUse:
        used = self.pool.get_size() - self.pool.get_idle_size()
        return PoolUse(used, self.pool.get_max_size())

    async def migrate(self) -> list[str]:
        return await self._run("migrate", BULK_TIMEOUT, _migrate)

    async def find(self, symbols: Sequence[str]) -> list[Snapshot]:
        return self._rows.snapshots(await self._select("find", "symbol = ANY($1)", list(symbols)))

    async def page(self, after: str, limit: int) -> list[Snapshot]:
        return await self._rows.page(self._read_page, after, limit)

    async def search(self, query: str, limit: int) -> list[Snapshot]:
        # The only ASCII characters in words are letters and digits: no quote, no regex syntax.
        wanted = words(query)
        lexemes = " & ".join(f"'{word}':*" for word in wanted)
        begins = "^[^a-z0-9]*" + wanted[0] if wanted else "^$"
        parameters = normalize_symbol(query), lexemes, begins, limit
        return self._rows.snapshots(await self._fetch("search", _SEARCH, *parameters))

    async def recently_watched(self, limit: int) -> list[str]:
        rows = await self._fetch("recent", RECENTLY_WATCHED + "$1", limit)
        return self._rows.symbols(symbol for (symbol,) in rows)

    async def upsert(self, instruments: Sequence[Instrument], done: Callable[[int], None]) -> None:
        rows = _in_order(map(opening_snapshot, instruments))
        await self._run("import", BULK_TIMEOUT, partial(_upsert, rows, done))

    async def delist(self, symbols: Sequence[str]) -> list[str]:
        return await self._run("delist", QUERY_TIMEOUT, partial(_delist, symbols))

    async def changes(self, since: int | None) -> tuple[int, list[Change]]:
        mark, changes = await self._run("changes", QUERY_TIMEOUT, partial(_changes, since))
        return mark, self._rows.changes(changes)

    async def save(self, snapshots: Sequence[Snapshot], watched: Sequence[str]) -> None:
        await self._run("save", QUERY_TIMEOUT, partial(_save, snapshots, watched))

    async def close(self) -> None:
        """Close all connections, and cut them after CLOSE_TIMEOUT. Call it on asyncio."""
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self.pool.close()
        except ERRORS:
            self.pool.terminate()

    async def _read_page(self, after: str, limit: int) -> list[tuple[str, tuple[Any, ...]]]:
        condition = 'symbol COLLATE "C" > $1 ORDER BY symbol COLLATE "C" LIMIT $2'
        return [(row[0], row) for row in await self._select("page", condition, after, limit)]

    async def _select(self, name: str, condition: str, *parameters: Any) -> list[tuple[Any, ...]]:
        query = f"SELECT {_SELECTED} FROM market_data WHERE NOT delisted AND {condition}"
        return await self._fetch(name, query, *parameters)

    async def _fetch(self, name: str, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        rows = await self._run(name, QUERY_TIMEOUT, lambda db: db.fetch(query, *parameters))
        return [tuple(row) for row in rows]

    async def _run(
        self, name: str, seconds: float, work: Callable[[Connection], Awaitable[T]]
    ) -> T:
        attempt = partial(aio_as_trio(self._attempt), name, seconds, work)
        return await self.calls.call(CONNECT_TIMEOUT + seconds, attempt)

    async def _attempt(
        self, name: str, seconds: float, work: Callable[[Connection], Awaitable[T]]
    ) -> T:
        """Do, time and count one piece of work on asyncio. Errors: StoreUnavailable."""
        start = perf_counter()
        try:
            return await self._on_connection(seconds, work)
        except asyncpg.ClientConfigurationError as error:
            raise StoreMisconfigured(f"DATABASE_URL: {error}") from error
        except ERRORS as error:
            self._stats.db_errors += 1
            kind = RowsRefused if isinstance(error, REFUSALS) else StoreUnavailable
            raise kind(f"Postgres: {error or type(error).__name__}") from error
        finally:
            self._stats.observe_query(name, perf_counter() - start)

    async def _on_connection(self, seconds: float, work: Callable[[Connection], Awaitable[T]]) -> T:
        connection = await self.pool.acquire(timeout=CONNECT_TIMEOUT)
        try:
            async with asyncio.timeout(seconds):
                result = await work(connection)
        except BaseException:
            # After any error or cancellation, this frees the place in the pool at once.
            connection.terminate()
            raise
        await self.pool.release(connection, timeout=QUERY_TIMEOUT)
        return result


@asynccontextmanager
async def open_postgres(
    url: str, pool_size: int, stats: StoreStats
) -> AsyncIterator[PostgresCatalogue]:
    """Open a pool without a connection yet: the first call finds out if the database is down."""
    catalogue = PostgresCatalogue(url, pool_size, stats)
    await aio_as_trio(catalogue.pool.__aenter__)()
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(catalogue.calls.run)
            yield catalogue
            nursery.cancel_scope.cancel()
    finally:
        with trio.move_on_after(2 * CLOSE_TIMEOUT, shield=True):
            await aio_as_trio(catalogue.close)()


async def _migrate(connection: Connection) -> list[str]:
    applied = []
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", MIGRATION_LOCK)
        # `IF NOT EXISTS` needs the right to create tables even if the table exists.
        if not await connection.fetchval("SELECT to_regclass('schema_migrations')"):
            await connection.execute(
                "CREATE TABLE schema_migrations (version integer PRIMARY KEY, "
                "name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
            )
        rows = await connection.fetch("SELECT version, name FROM schema_migrations")
        for migration in pending("postgres", dict(rows)):
            await connection.execute(migration.sql)
            insert = "INSERT INTO schema_migrations (version, name) VALUES ($1, $2)"
            await connection.execute(insert, migration.version, migration.name)
            applied.append(migration.name)
    return applied


async def _upsert(
    rows: Sequence[Snapshot], done: Callable[[int], None], connection: Connection
) -> None:
    async with connection.transaction():
        for start in range(0, len(rows), BATCH_ROWS):
            batch = rows[start : start + BATCH_ROWS]
            await connection.execute(_INSERT + ON_CONFLICT_LIST, *_columns(batch))
            done(start + len(batch))


async def _delist(symbols: Sequence[str], connection: Connection) -> list[str]:
    async with connection.transaction():
        listed = {row["symbol"] for row in await connection.fetch(_LOCK, symbols)}
        missing = [symbol for symbol in symbols if symbol not in listed]
        if not missing:
            update = "UPDATE market_data SET delisted = true WHERE symbol = ANY($1)"
            await connection.execute(update, symbols)
    return missing


async def _changes(since: int | None, connection: Connection) -> tuple[int, list[Change]]:
    """Return changes, and as the mark the oldest open transaction: its changes become visible later."""
    horizon = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
    mark = await connection.fetchval(horizon)
    rows = (
        await connection.fetch(SELECT_CHANGES + "delisted")
        if since is None
        else await connection.fetch(SELECT_CHANGES + "changed_in >= $1", since)
    )
    return mark, [Change(*row) for row in rows]


async def _save(
    snapshots: Sequence[Snapshot], watched: Sequence[str], connection: Connection
) -> None:
    await connection.execute(_INSERT + ON_CONFLICT_SAVE, *_columns(_in_order(snapshots)))
    if watched:
        await connection.execute(_WATCHED, watched)


def _in_order(rows: Iterable[Snapshot]) -> list[Snapshot]:
    """Sort rows by symbol, as `_LOCK` does."""
    return sorted(rows, key=lambda row: row.symbol)


def _columns(rows: Sequence[Snapshot]) -> list[list[Any]]:
    return [[getattr(row, field) for row in rows] for field in FIELDS]
