"""The catalogue in Postgres, through an asyncpg pool on the trio-asyncio loop.

Every statement runs in a task of the store (`DeadlineCalls`) and ends within QUERY_TIMEOUT. A
connection that does not answer is terminated: a frozen database cannot exhaust the pool.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from time import perf_counter, time
from typing import Any, TypeVar

import asyncpg
import trio
from trio_asyncio import aio_as_trio

from server.quotes.instrument import Instrument
from server.quotes.snapshot import Snapshot
from server.store import writes_postgres as writes
from server.store.bars_postgres import PostgresBars, make_months_ahead
from server.store.catalogue import (
    Change,
    PoolUse,
    RowsRefused,
    StatementRefused,
    StoreMisconfigured,
    StoreUnavailable,
    imported_rows,
    reason_of,
)
from server.store.deadline_calls import DeadlineCalls
from server.store.migrations import pending
from server.store.postgres_url import asyncpg_url
from server.store.rows import Rows
from server.store.search import CANDIDATES, Groups, search
from server.store.sql import RECENTLY_WATCHED, SELECT_CHANGES
from server.store.sql_postgres import BEGIN_ANEW, BY_SYMBOL, LIST, NOT_INDEXED, SELECTED
from server.store.stats import StoreStats
from server.store.writes_postgres import Connection

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

ENCODING = "UTF8"
"""The server encoding that holds every character of Unicode."""

POOLER_ERRORS = (asyncpg.DuplicatePreparedStatementError, asyncpg.InvalidSQLStatementNameError)

POOLER_HINT = ": behind a pooler of transactions, DATABASE_POOLER=transaction is needed"

MISCONFIGURED = (
    asyncpg.ClientConfigurationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.UndefinedObjectError,
    asyncpg.InvalidParameterValueError,
    asyncpg.CantChangeRuntimeParamError,
    ValueError,
    LookupError,
)
"""Errors of a new connection that no time cures: the address is wrong, or names a database, a user or a
setting that the server does not have. asyncpg raises LookupError if the address names no user and the
system has no name for this one.
"""

_SINCE = "changed_in >= $1 AND changed_in < pg_snapshot_xmax(pg_current_snapshot())::text::bigint"

UNAVAILABLE = ("08", "25", "28", "3D", "40", "53", "55", "57", "58", "XX")
"""Classes of SQLSTATE (PostgreSQL, Appendix A) that say something of the database. All others are about
the statement: they do not open the circuit breaker.
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


T = TypeVar("T")


class PostgresCatalogue:
    """See `Catalogue`. Made by `open_postgres`."""

    name = "postgres"

    def __init__(
        self, url: str, pool_size: int, stats: StoreStats, *, pooled: bool = False
    ) -> None:
        """
        Arguments:
            pooled: `url` is a pooler's that gives each transaction any of its connections. Then each
                piece of work is one transaction, and no statement is prepared by name.
        """
        self._stats = stats
        self._pooled = pooled
        self._rows = Rows("postgres", stats.invalid)
        self.calls = DeadlineCalls(pool_size * WAITING_CALLS)
        self.bars = PostgresBars(self._run)
        self.pool = asyncpg.create_pool(
            asyncpg_url(url),
            min_size=0,
            max_size=pool_size,
            statement_cache_size=0 if pooled else 100,
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
        if await self._fetch("unindexed", f"{NOT_INDEXED} LIMIT 1"):
            await self._run("index", BULK_TIMEOUT, writes.index_names)
        return await search(self, query, limit)

    async def by_symbol(self, prefix: str, key: str, limit: int) -> list[Snapshot]:
        return self._rows.snapshots(await self._fetch("search", BY_SYMBOL, prefix, key, limit))

    async def by_words(self, groups: Groups, *, whole: bool) -> list[Snapshot]:
        # Words are letters and digits of any script: nothing in them is special to a tsquery.
        mark = "" if whole else ":*"
        alternatives = (" | ".join(f"'{word}'{mark}" for word in group) for group in groups)
        wanted = " & ".join(f"({group})" for group in alternatives)
        condition = f"words @@ $1::text::tsquery LIMIT {CANDIDATES}"
        return self._rows.snapshots(await self._select("search", condition, wanted))

    async def recently_watched(self, limit: int) -> list[str]:
        rows = await self._fetch("recent", RECENTLY_WATCHED + "$1", limit)
        return self._rows.symbols(symbol for (symbol,) in rows)

    async def upsert(
        self, instruments: Sequence[Instrument], done: Callable[[int], None], *, anew: bool = False
    ) -> None:
        rows = imported_rows(instruments, anew=anew)
        work = partial(writes.upsert, BEGIN_ANEW if anew else LIST, rows, done)
        await self._run("import", BULK_TIMEOUT, work)

    async def delist(self, symbols: Sequence[str]) -> list[str]:
        return await self._run("delist", QUERY_TIMEOUT, partial(writes.delist, symbols))

    async def adjust(self, symbol: str, change: Callable[[Snapshot], Snapshot]) -> Snapshot:
        work = partial(writes.adjust, self._rows, symbol, change)
        return await self._run("adjust", QUERY_TIMEOUT, work)

    async def rename(self, old: str, new: str) -> None:
        await self._run("rename", QUERY_TIMEOUT, partial(writes.rename, self._rows, old, new))

    async def changes(self, since: int | None) -> tuple[int, list[Change]]:
        mark, changes = await self._run("changes", QUERY_TIMEOUT, partial(_changes, since))
        return mark, self._rows.changes(changes)

    async def save(self, snapshots: Sequence[Snapshot], watched: Sequence[str]) -> None:
        await self._run("save", QUERY_TIMEOUT, partial(writes.save, snapshots, watched))

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
        query = f"SELECT {SELECTED} FROM market_data WHERE NOT delisted AND {condition}"
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
        except ERRORS as error:
            self._stats.db_errors += 1
            hint = POOLER_HINT if isinstance(error, POOLER_ERRORS) else ""
            raise _kind_of(error)(f"Postgres: {reason_of(error)}{hint}") from error
        finally:
            self._stats.queries[name].observe(perf_counter() - start)

    async def _on_connection(self, seconds: float, work: Callable[[Connection], Awaitable[T]]) -> T:
        try:
            connection = await self.pool.acquire(timeout=CONNECT_TIMEOUT)
        except MISCONFIGURED as error:
            raise StoreMisconfigured(f"DATABASE_URL: {reason_of(error)}") from error
        try:
            if (encoding := connection.get_settings().server_encoding) != ENCODING:
                raise StoreMisconfigured(
                    f"DATABASE_URL: the encoding of the database is {encoding}, not {ENCODING}: it "
                    f"cannot hold every name; createdb -E {ENCODING} -T template0 makes one that can"
                )
            async with asyncio.timeout(seconds):
                if self._pooled:
                    async with connection.transaction():
                        result = await work(connection)
                else:
                    result = await work(connection)
        except BaseException:
            # After any error or cancellation, this frees the place in the pool at once.
            with suppress(*ERRORS):  # what went wrong before is the error to tell
                connection.terminate()
            raise
        await self.pool.release(connection, timeout=QUERY_TIMEOUT)
        return result


@asynccontextmanager
async def open_postgres(
    url: str, pool_size: int, stats: StoreStats, *, pooled: bool = False
) -> AsyncIterator[PostgresCatalogue]:
    """Open a pool without a connection yet: the first call finds out if the database is down."""
    catalogue = PostgresCatalogue(url, pool_size, stats, pooled=pooled)
    await aio_as_trio(catalogue.pool.__aenter__)()
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(catalogue.calls.run)
            yield catalogue
            nursery.cancel_scope.cancel()
    finally:
        with trio.move_on_after(2 * CLOSE_TIMEOUT, shield=True):
            await aio_as_trio(catalogue.close)()


def _kind_of(error: Exception) -> type[StoreUnavailable]:
    if isinstance(error, REFUSALS):
        return RowsRefused
    state = error.sqlstate if isinstance(error, asyncpg.PostgresError) else None
    about_statement = state is not None and not state.startswith(UNAVAILABLE)
    return StatementRefused if about_statement else StoreUnavailable


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
        if applied:
            await writes.index_names(connection)
        await make_months_ahead(int(time() // 60), connection)
    return applied


async def _changes(since: int | None, connection: Connection) -> tuple[int, list[Change]]:
    """Return changes, and as the mark the oldest transaction still open: its changes become visible
    only later.

    Marks of this cluster are below its next transaction. Others came with a dump of another cluster,
    and would be changes at each look.
    """
    horizon = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
    mark = await connection.fetchval(horizon)
    rows = (
        await connection.fetch(SELECT_CHANGES + "delisted")
        if since is None
        else await connection.fetch(SELECT_CHANGES + _SINCE, since)
    )
    return mark, [Change(*row) for row in rows]
