"""The store as a whole: opens what is configured, prepares it, and runs its tasks."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import outcome
import structlog
import trio

from server.config.state_folder import state_folder
from server.quotes.instrument import Instrument
from server.quotes.snapshot import Snapshot
from server.store.cache import Cache, GuardedCache
from server.store.cache_memory import MemoryCache
from server.store.cache_redis import open_redis
from server.store.catalogue import BATCH_ROWS, Catalogue, StoreMisconfigured, StoreUnavailable
from server.store.catalogue_memory import MemoryCatalogue
from server.store.catalogue_sqlite import open_sqlite
from server.store.changes import Changes, Listings
from server.store.component import Component
from server.store.embedded import load_instruments
from server.store.invalidation import Invalidations
from server.store.loader import Loader, Payer
from server.store.loop import open_asyncio_loop
from server.store.stats import StoreStats
from server.store.writeback import LiveSymbol, WriteBack

PREPARE_TIMEOUT = 5.0
"""Seconds a start waits for the database; then it serves without, and goes on trying."""

PREPARE_INTERVAL = 2.0
"""Seconds between two tries."""

WARM_SYMBOLS = 1000
"""The most recently watched symbols that a start warms where no others are configured."""

WARM_TIMEOUT = 10.0
"""Seconds for a warming by command or at the start."""

FINAL_TIMEOUT = 1.5
"""Seconds for the last prices at a shutdown, after clients had their five: nine are allowed in all."""

DATABASE_RECOVERY = 2.0
"""Seconds for which a database that failed three times is not asked: a deadline's length."""

CACHE_RECOVERY = 5.0
"""Seconds for which a cache that failed three times is not asked; the database answers meanwhile."""

T = TypeVar("T")

log = structlog.get_logger()


@dataclass(kw_only=True)
class StoreOptions:
    """What the settings say. Seconds; `cache_symbols` bounds what a process keeps by itself; without a
    `sqlite_path` the file is in the user's state folder; `warm` names symbols to load at the start.
    """

    database_url: str = field(default="", repr=False)  # it may hold a password
    database_pool_size: int = 10
    database_migrate: bool = True
    redis_url: str = field(default="", repr=False)
    sqlite_path: str = ""
    cache_ttl: float = 300.0
    cache_symbols: int = 20_000
    warm: Sequence[str] = ()
    write_interval: float = 5.0


@dataclass(kw_only=True)
class Store:
    """Made by `open_store`, whose caller runs it."""

    options: StoreOptions
    catalogue: Catalogue
    cache: GuardedCache
    loader: Loader
    write_back: WriteBack
    changes: Changes
    invalidations: Invalidations | None
    components: Sequence[Component]
    stats: StoreStats
    pool_use: Callable[[], tuple[int, int]] | None
    _prepared: trio.Event = field(default_factory=trio.Event)

    async def run(
        self, listings: Listings, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Prepare the catalogue, then load, listen, write back and tell `listings` what changes until
        cancelled; last prices are written then, for which FINAL_TIMEOUT is given.

        Errors: StoreMisconfigured before it has started, in the groups of its nurseries.
        """
        try:
            async with trio.open_nursery() as tasks:
                tasks.start_soon(self.loader.run)
                if self.invalidations:
                    tasks.start_soon(self.invalidations.run, self._on_notice, self._on_missed)
                tasks.start_soon(self._prepare)
                with trio.move_on_after(PREPARE_TIMEOUT):
                    await self._prepared.wait()
                task_status.started()
                await self._prepared.wait()
                tasks.start_soon(self._warm_at_start)
                tasks.start_soon(self.changes.run, listings)
                await self.write_back.run(self.options.write_interval)
        finally:
            written = False
            with trio.CancelScope(shield=True), trio.move_on_after(FINAL_TIMEOUT):
                written = await self.write_back.flush()
                await self.loader.write_cache()
            if not written:
                log.warning("the last prices could not be written")

    def unready(self) -> list[str]:
        """Return why clients that name symbols would be refused now, if none of these is in memory."""
        database = self.components[0]
        if self.loader.remembers or (self._prepared.is_set() and database.state != "down"):
            return []
        since = "does not answer" if self._prepared.is_set() else "has not answered yet"
        return [f"the catalogue ({database.name}) {since}"]

    async def invalidate(self, symbols: Sequence[str]) -> int:
        """Forget `symbols` on every instance; how many the cache had. Errors: StoreUnavailable."""
        if not symbols:
            return 0
        try:
            count = await self.cache.delete_many(symbols)
        finally:
            self._on_notice(symbols)
        if self.invalidations:
            await self.invalidations.publish(symbols)
        return count

    async def search(self, query: str, limit: int) -> list[Snapshot]:
        """What the catalogue finds (see there). Errors: StoreUnavailable."""
        return await self.components[0].ask(lambda: self.catalogue.search(query, limit))

    async def warm(self, symbols: Iterable[str], payer: Payer | None = None) -> int:
        """Load `symbols` into the cache, for a user or the server itself; how many there are.

        Errors: StoreUnavailable, TooManyLookups.
        """
        loaded = await self.loader.load(symbols, WARM_TIMEOUT, payer=payer)
        if loaded.unavailable:
            raise StoreUnavailable(f"{len(loaded.unavailable)} symbols could not be loaded")
        return len(loaded.found)

    def _on_notice(self, symbols: Sequence[str]) -> None:
        self.loader.invalidate(symbols)
        self.changes.look()

    def _on_missed(self) -> None:
        self.loader.forget_unknown()
        self.changes.look()

    async def _prepare(self) -> None:
        database = self.components[0]
        started_at = trio.current_time() + PREPARE_TIMEOUT
        while True:
            try:
                if self.options.database_migrate:
                    for name in await self.catalogue.migrate():
                        log.info("migration applied", database=self.catalogue.name, migration=name)
                if not await self.catalogue.page("", 1):
                    log.warning("the catalogue is empty: `quotestream import` fills it")
                database.succeeded()
                break
            except StoreUnavailable as error:
                if isinstance(error, StoreMisconfigured) and trio.current_time() < started_at:
                    raise
                database.failed(str(error))
            await trio.sleep(PREPARE_INTERVAL)
        self._prepared.set()

    async def _warm_at_start(self) -> None:
        try:
            symbols = self.options.warm or await self.catalogue.recently_watched(WARM_SYMBOLS)
            if count := await self.warm(symbols):
                log.info("cache warmed", symbols=count)
        except StoreUnavailable as error:
            log.warning("the cache was not warmed", problem=str(error))


@asynccontextmanager
async def open_store(
    options: StoreOptions,
    snapshot: Callable[[str], Snapshot | None],
    live: Callable[[], Iterable[LiveSymbol]],
) -> AsyncIterator[Store]:
    """Open what `options` name, within `open_asyncio_loop`; asyncpg and redis are imported only where
    they are used.

    Arguments:
        snapshot: a symbol's state while it is in memory, None if it is not.
        live: all symbols in memory.

    Errors: BadRedisUrl; StoreUnavailable if a file cannot be opened; a server that is down is
    no error, it may come up.
    """
    stats = StoreStats()
    async with AsyncExitStack() as stack:
        catalogue, pool_use = await _open_catalogue(options, stats, stack)
        database = Component("catalogue", catalogue.name, recovery=DATABASE_RECOVERY)
        cache, invalidations = await _open_cache(options, stack, stats)
        guard = Component("cache", f"{cache.name} cache", recovery=CACHE_RECOVERY)
        guarded = GuardedCache(cache, guard, stats)
        loader = Loader(
            catalogue=catalogue, cache=guarded, live=snapshot, database=database, stats=stats,
            ttl=options.cache_ttl, size=options.cache_symbols,
        )  # fmt: skip
        name = f"writing to {catalogue.name}"
        writing = Component("write_back", name, recovery=DATABASE_RECOVERY)
        write_back = WriteBack(catalogue, writing, live, loader.remember, stats)
        yield Store(
            options=options, catalogue=catalogue, cache=guarded, loader=loader,
            write_back=write_back, changes=Changes(catalogue, database, guarded, loader),
            invalidations=invalidations, components=(database, guard, writing),
            stats=stats, pool_use=pool_use,
        )  # fmt: skip


async def migrate(options: StoreOptions) -> list[str]:
    """Bring the schema up to date; what was applied. Errors: StoreUnavailable."""
    return await _run_alone(options, lambda catalogue, _: catalogue.migrate())


async def import_instruments(
    options: StoreOptions, instruments: Sequence[Instrument], done: Callable[[int], None]
) -> None:
    """List `instruments`, all or none, and have every instance forget what it knew of them.

    Errors: StoreUnavailable.
    """

    async def work(catalogue: Catalogue, stack: AsyncExitStack) -> None:
        cached = await _open_cache(options, stack)
        await catalogue.migrate()
        await catalogue.upsert(instruments, done)
        await _tell(*cached, [each.symbol for each in instruments])

    await _run_alone(options, work)


async def delist(options: StoreOptions, symbols: Sequence[str]) -> list[str]:
    """Delist `symbols`, all or none, everywhere; returns those that are not listed: then nothing was
    done. Errors: StoreUnavailable.
    """

    async def work(catalogue: Catalogue, stack: AsyncExitStack) -> list[str]:
        cached = await _open_cache(options, stack)
        await catalogue.migrate()
        missing = await catalogue.delist(symbols)
        if not missing:
            await _tell(*cached, symbols)
        return missing

    return await _run_alone(options, work)


async def _tell(cache: Cache, invalidations: Invalidations | None, symbols: Sequence[str]) -> None:
    """Have every instance that can be told at once forget `symbols`."""
    if not invalidations:
        return
    try:
        for start in range(0, len(symbols), BATCH_ROWS):
            batch = symbols[start : start + BATCH_ROWS]
            await cache.delete_many(batch)
            await invalidations.publish(batch)
    except StoreUnavailable as error:
        log.warning("servers see it when they look, in some seconds", problem=str(error))


async def _run_alone(
    options: StoreOptions, work: Callable[[Catalogue, AsyncExitStack], Awaitable[T]]
) -> T:
    """Do `work` with the catalogue, without what a server has around it."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(open_asyncio_loop(options.database_url, options.redis_url))
        catalogue, _ = await _open_catalogue(options, StoreStats(), stack)
        # Captured, as the drivers' nurseries would wrap what is raised into groups.
        result = await outcome.acapture(work, catalogue, stack)
    return result.unwrap()


async def _open_catalogue(
    options: StoreOptions, stats: StoreStats, stack: AsyncExitStack
) -> tuple[Catalogue, Callable[[], tuple[int, int]] | None]:
    """The catalogue, and where it has a pool, what tells its use."""
    if options.database_url:
        from server.store.catalogue_postgres import open_postgres

        postgres = await stack.enter_async_context(
            open_postgres(options.database_url, options.database_pool_size, stats)
        )
        return postgres, postgres.pool_use
    path = Path(options.sqlite_path) if options.sqlite_path else state_folder() / "quotes.db"
    shipped = load_instruments()
    try:
        sqlite = await stack.enter_async_context(open_sqlite(path, shipped, stats))
    except StoreUnavailable as error:
        if options.sqlite_path:
            raise StoreUnavailable(f"SQLITE_PATH: {error}") from None
        log.warning("last prices are not kept: SQLITE_PATH may name a file", problem=str(error))
        return MemoryCatalogue(shipped), None
    return sqlite, None


async def _open_cache(
    options: StoreOptions, stack: AsyncExitStack, stats: StoreStats | None = None
) -> tuple[Cache, Invalidations | None]:
    if not options.redis_url:
        return MemoryCache(options.cache_symbols), None
    redis = await stack.enter_async_context(open_redis(options.redis_url, stats))
    return redis, Invalidations(redis)
