"""The store as a whole: opens catalogue and cache, prepares them, and runs their tasks."""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import time_ns

import structlog
import trio

from server.config.state_folder import state_folder
from server.history.minutes import Minutes
from server.quotes.instrument import Instrument
from server.quotes.snapshot import Snapshot
from server.sessions.calendar import ALWAYS, Calendar, LastOpening
from server.store.bar_reader import BarReader
from server.store.bar_writer import BarWriter
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
from server.store.stats import StoreStats
from server.store.writeback import LiveSymbol, WriteBack

PREPARE_TIMEOUT = 5.0
"""Seconds that a start waits for the database. Then it serves without it, and keeps trying."""

PREPARE_INTERVAL = 2.0
"""Seconds between two tries."""

WARM_SYMBOLS = 1000
"""Recently watched symbols that a start loads into the cache if the settings name no others."""

WARM_TIMEOUT = 10.0
"""Seconds for loading symbols into the cache, at the start or by request."""

FINAL_TIMEOUT = 1.5
"""Seconds for writing last prices at a shutdown. The drain takes up to five before; nine are allowed.
"""

DATABASE_RECOVERY = 2.0
"""Seconds without calls to a database that failed three times: as long as a query's timeout."""

CACHE_RECOVERY = 5.0
"""Seconds without calls to a cache that failed three times. Meanwhile the database answers."""

UNTOLD = "servers could not be told; they notice the change within two seconds"
"""The warning after a change of instruments without Redis."""

log = structlog.get_logger()


@dataclass(kw_only=True)
class StoreOptions:
    """The store's settings. Times are in seconds.

    `cache_symbols` is the number of symbols that one process keeps in memory. If `sqlite_path` is
    empty, the file is in the user's state folder. `warm` names symbols to load at the start. Bars are
    deleted after `bars_keep`. URLs may hold passwords, so `repr` leaves them out.
    """

    database_url: str = field(default="", repr=False)
    database_pool_size: int = 10
    database_pooler: bool = False
    shipped: bool = True
    database_migrate: bool = True
    redis_url: str = field(default="", repr=False)
    sqlite_path: str = ""
    cache_ttl: float = 300.0
    cache_symbols: int = 20_000
    warm: Sequence[str] = ()
    write_interval: float = 5.0
    session: Calendar = ALWAYS
    bars_keep: float = 365 * 86_400.0


@dataclass(kw_only=True)
class Store:
    """Made by `open_store`, whose caller runs it. `database` is one of `components`."""

    options: StoreOptions
    catalogue: Catalogue
    cache: GuardedCache
    loader: Loader
    write_back: WriteBack
    bars: BarReader
    bar_writer: BarWriter
    changes: Changes
    invalidations: Invalidations | None
    database: Component
    components: Sequence[Component]
    stats: StoreStats
    _prepared: trio.Event = field(default_factory=trio.Event)

    async def run(
        self, listings: Listings, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Prepare the catalogue, then run all tasks of the store until cancelled.

        `listings` is told about changed instruments. After a cancellation, last prices are written
        within FINAL_TIMEOUT.

        Errors: StoreMisconfigured before it has started, in the groups of its nurseries.
        """
        try:
            async with trio.open_nursery() as tasks:
                tasks.start_soon(self.loader.run)
                if self.invalidations:
                    tasks.start_soon(self.invalidations.run, self._on_notice, self._on_missed)
                tasks.start_soon(self._follow_catalogue, listings)
                with trio.move_on_after(PREPARE_TIMEOUT):
                    await self._prepared.wait()
                    # So a feed that still has old symbols does not list them anew.
                    await self.changes.finish()
                task_status.started()
                await self._prepared.wait()
                tasks.start_soon(self._warm_at_start)
                tasks.start_soon(self.bar_writer.tend, self.options.bars_keep)
                await self._write()
        finally:
            prices, bars = False, not self.bar_writer.has_unwritten
            with trio.CancelScope(shield=True), trio.move_on_after(FINAL_TIMEOUT):
                prices = await self.write_back.flush()
                bars = bars or await self.bar_writer.flush()
                await self.loader.write_cache()
            if not prices:
                log.warning("the last prices could not be written")
            # One line for one cause: what refuses prices refuses bars.
            elif not bars:
                log.warning("the last bars could not be written")

    async def _write(self) -> None:
        """Write prices and bars every `write_interval` until cancelled."""
        while True:
            await self.bar_writer.flush()
            await trio.sleep(self.options.write_interval)
            await self.write_back.flush()

    def unready(self) -> list[str]:
        """Return the reasons why clients of symbols that are not in memory would be refused now."""
        if self.loader.remembers or (self._prepared.is_set() and self.database.state != "down"):
            return []
        problem = "does not answer" if self._prepared.is_set() else "has not answered yet"
        return [f"the catalogue ({self.database.name}) {problem}"]

    async def invalidate(self, symbols: Sequence[str]) -> int:
        """Forget `symbols` on every instance, and return how many were cached.

        Errors: StoreUnavailable.
        """
        if not symbols:
            return 0
        try:
            count = await self.cache.delete_many(symbols)
        finally:
            self._on_notice(symbols)
        if self.invalidations:
            await self.invalidations.publish(symbols)
        return count

    async def list_instruments(self, instruments: Sequence[Instrument]) -> None:
        """List `instruments`, all or none, on every instance. Errors: StoreUnavailable."""
        await self.database.ask(lambda: self.catalogue.upsert(instruments, lambda _: None))
        await self._announce([each.symbol for each in instruments])

    async def delist(self, symbols: Sequence[str]) -> list[str]:
        """Delist `symbols` on every instance, all or none, and return those that were not listed.

        Errors: StoreUnavailable.
        """
        missing = await self.database.ask(lambda: self.catalogue.delist(symbols))
        if not missing:
            await self._announce(symbols)
        return missing

    async def _announce(self, symbols: Sequence[str]) -> None:
        """Make every instance look at changed `symbols` at once, if Redis can be reached."""
        try:
            for start in range(0, len(symbols), BATCH_ROWS):
                await self.invalidate(symbols[start : start + BATCH_ROWS])
        except StoreUnavailable as error:
            log.warning(UNTOLD, problem=str(error))

    async def search(self, query: str, limit: int) -> list[Snapshot]:
        """Search the catalogue (see `Catalogue.search`). Errors: StoreUnavailable."""
        return await self.database.ask(lambda: self.catalogue.search(query, limit))

    async def page(self, after: str, limit: int) -> list[Snapshot]:
        """Return a page of all instruments (see `Catalogue.page`). Errors: StoreUnavailable."""
        return await self.database.ask(lambda: self.catalogue.page(after, limit))

    async def warm(self, symbols: Iterable[str], payer: Payer | None = None) -> int:
        """Load `symbols` into the cache, for a user or the server itself, and return the number found.

        Errors: StoreUnavailable, TooManyLookups.
        """
        loaded = await self.loader.load(symbols, WARM_TIMEOUT, payer=payer)
        if loaded.unavailable:
            raise StoreUnavailable(f"{len(loaded.unavailable)} symbols could not be loaded")
        return len(loaded.found)

    def _on_notice(self, symbols: Sequence[str]) -> None:
        self.loader.invalidate(symbols)
        self.changes.look(symbols)

    def _on_missed(self) -> None:
        self.loader.forget_unknown()
        self.changes.look()

    async def _follow_catalogue(self, listings: Listings) -> None:
        await self._prepare()
        await self.changes.run(listings)

    async def _prepare(self) -> None:
        """Migrate and read the catalogue once; retry until that succeeds."""
        deadline = trio.current_time() + PREPARE_TIMEOUT
        while True:
            try:
                if self.options.database_migrate:
                    for name in await self.catalogue.migrate():
                        log.info("migration applied", database=self.catalogue.name, migration=name)
                if not await self.catalogue.page("", 1):
                    log.warning("the catalogue is empty: `quotestream import` fills it")
                self.database.succeeded()
                break
            except StoreUnavailable as error:
                if isinstance(error, StoreMisconfigured) and trio.current_time() < deadline:
                    raise
                self.database.failed(str(error))
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
    minutes: Minutes,
    may_write: Callable[[], bool] = lambda: True,
) -> AsyncIterator[Store]:
    """Open the databases that `options` name. The caller has opened `open_asyncio_loop` around it.

    asyncpg and redis are imported only if they are used.

    Arguments:
        snapshot: returns a symbol's state while it is in memory, else None.
        live: returns all symbols in memory.
        minutes: the newest bars.
        may_write: returns whether this instance writes bars, not another one to the same database.

    Errors: BadRedisUrl; StoreUnavailable if a file cannot be opened. A server that is down is not an
    error, as it may come up.
    """
    stats = StoreStats()
    async with AsyncExitStack() as stack:
        catalogue = await open_catalogue(options, stats, stack)
        database = Component("catalogue", catalogue.name, recovery=DATABASE_RECOVERY)
        cache, invalidations = await open_cache(options, stack, stats)
        guard = Component("cache", f"{cache.name} cache", recovery=CACHE_RECOVERY)
        guarded = GuardedCache(cache, guard, stats)
        openings = LastOpening(options.session)
        loader = Loader(
            catalogue=catalogue,
            cache=guarded,
            live=snapshot,
            database=database,
            stats=stats,
            ttl=options.cache_ttl,
            size=options.cache_symbols,
            last_opening=lambda: openings.at(time_ns() // 1000),
        )
        name = f"writing to {catalogue.name}"
        writing = Component("write_back", name, recovery=DATABASE_RECOVERY)
        write_back = WriteBack(catalogue, writing, live, loader.remember, stats)
        tables = catalogue.bars
        bar_writer = BarWriter(
            tables=tables,
            reading=database,
            writing=writing,
            minutes=minutes,
            may_write=may_write,
            write_symbols=write_back.flush,
            stats=stats,
        )
        yield Store(
            options=options,
            catalogue=catalogue,
            cache=guarded,
            loader=loader,
            write_back=write_back,
            bars=BarReader(tables, database, minutes, bar_writer.settle),
            bar_writer=bar_writer,
            changes=Changes(catalogue, database, guarded, loader, write_back.rewrite),
            invalidations=invalidations,
            database=database,
            components=(database, guard, writing),
            stats=stats,
        )


async def open_catalogue(
    options: StoreOptions, stats: StoreStats, stack: AsyncExitStack, *, lasting: bool = False
) -> Catalogue:
    """Open the catalogue. If no file can be written, a `lasting` one is an error, another one is lost
    with the process.
    """
    if options.database_url:
        from server.store.catalogue_postgres import open_postgres

        return await stack.enter_async_context(
            open_postgres(
                options.database_url,
                options.database_pool_size,
                stats,
                pooled=options.database_pooler,
            )
        )
    shipped = _shipped() if options.shipped else ()
    try:
        path = Path(options.sqlite_path) if options.sqlite_path else state_folder() / "quotes.db"
        return await stack.enter_async_context(open_sqlite(path, shipped, stats))
    except (StoreUnavailable, OSError) as error:
        if options.sqlite_path or lasting:
            raise StoreUnavailable(f"SQLITE_PATH: {error}") from None
        log.warning("last prices are not kept: SQLITE_PATH may name a file", problem=str(error))
        return MemoryCatalogue(list(shipped))


def _shipped() -> Iterator[Instrument]:
    """Return the shipped instruments. Their file is read when somebody takes the first one."""
    yield from load_instruments()


async def open_cache(
    options: StoreOptions, stack: AsyncExitStack, stats: StoreStats | None = None
) -> tuple[Cache, Invalidations | None]:
    """Open the cache and, with Redis, this process' end of the channel of invalidations."""
    if not options.redis_url:
        return MemoryCache(options.cache_symbols), None
    redis = await stack.enter_async_context(open_redis(options.redis_url, stats))
    return redis, Invalidations(redis)
