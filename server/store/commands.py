"""What commands do with the catalogue and the cache, without a running store."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import TypeVar

import outcome
import structlog

from server.quotes.instrument import Instrument
from server.quotes.snapshot import Snapshot
from server.store.cache import Cache
from server.store.catalogue import BATCH_ROWS, Catalogue, StoreUnavailable
from server.store.invalidation import Invalidations
from server.store.loop import open_asyncio_loop
from server.store.stats import StoreStats
from server.store.store import UNTOLD, StoreOptions, open_cache, open_catalogue

T = TypeVar("T")

log = structlog.get_logger()


async def migrate(options: StoreOptions) -> list[str]:
    """Bring the schema up to date and return the applied migrations. Errors: StoreUnavailable."""
    return await run_alone(options, lambda catalogue, _: catalogue.migrate())


async def import_instruments(
    options: StoreOptions,
    instruments: Sequence[Instrument],
    done: Callable[[int], None],
    *,
    anew: bool = False,
) -> None:
    """List `instruments`, all or none, and make every instance forget their old reference data.

    Arguments:
        anew: forget last prices too, as the symbols belonged to other instruments.

    Errors: StoreUnavailable.
    """

    async def work(catalogue: Catalogue, stack: AsyncExitStack) -> None:
        cached = await open_cache(options, stack)
        await catalogue.migrate()
        await catalogue.upsert(instruments, done, anew=anew)
        await invalidate_everywhere(*cached, [each.symbol for each in instruments])

    await run_alone(options, work)


async def list_instruments(
    options: StoreOptions, query: str, show: Callable[[Sequence[Snapshot]], None]
) -> int:
    """Have `show` print what a search finds, or all instruments by symbol, and return their number.

    Errors: StoreUnavailable.
    """

    async def work(catalogue: Catalogue, _: AsyncExitStack) -> int:
        await catalogue.migrate()
        if query:
            found = await catalogue.search(query, BATCH_ROWS)
            show(found)
            return len(found)
        count, page = 0, await catalogue.page("", BATCH_ROWS)
        while page:
            show(page)
            count += len(page)
            page = await catalogue.page(page[-1].symbol, BATCH_ROWS)
        return count

    return await run_alone(options, work)


async def delist(options: StoreOptions, symbols: Sequence[str]) -> list[str]:
    """Delist `symbols` on every instance, all or none, and return those that were not listed.

    If any was not listed, nothing was done. Errors: StoreUnavailable.
    """

    async def work(catalogue: Catalogue, stack: AsyncExitStack) -> list[str]:
        cached = await open_cache(options, stack)
        await catalogue.migrate()
        missing = await catalogue.delist(symbols)
        if not missing:
            await invalidate_everywhere(*cached, symbols)
        return missing

    return await run_alone(options, work)


async def adjust(
    options: StoreOptions, symbol: str, change: Callable[[Snapshot], Snapshot]
) -> Snapshot:
    """Replace a listed row by the result of `change`. Make every instance look at it, and return it.

    Errors: ChangeRefused, StoreUnavailable.
    """

    async def work(catalogue: Catalogue, stack: AsyncExitStack) -> Snapshot:
        cached = await open_cache(options, stack)
        await catalogue.migrate()
        row = await catalogue.adjust(symbol, change)
        await invalidate_everywhere(*cached, [symbol])
        return row

    return await run_alone(options, work)


async def rename(options: StoreOptions, old: str, new: str) -> None:
    """Give an instrument another symbol on every instance. Errors: ChangeRefused, StoreUnavailable."""

    async def work(catalogue: Catalogue, stack: AsyncExitStack) -> None:
        cached = await open_cache(options, stack)
        await catalogue.migrate()
        await catalogue.rename(old, new)
        await invalidate_everywhere(*cached, [old, new])

    await run_alone(options, work)


async def invalidate_everywhere(
    cache: Cache, invalidations: Invalidations | None, symbols: Sequence[str]
) -> None:
    """Make every instance forget `symbols` at once, if Redis can be reached."""
    if not invalidations:
        return
    try:
        for start in range(0, len(symbols), BATCH_ROWS):
            batch = symbols[start : start + BATCH_ROWS]
            await cache.delete_many(batch)
            await invalidations.publish(batch)
    except StoreUnavailable as error:
        log.warning(UNTOLD, problem=str(error))


async def run_alone(
    options: StoreOptions, work: Callable[[Catalogue, AsyncExitStack], Awaitable[T]]
) -> T:
    """Do `work` with the catalogue for one command, without a running store."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(open_asyncio_loop(options.database_url, options.redis_url))
        catalogue = await open_catalogue(options, StoreStats(), stack, lasting=True)
        # Captured, as the drivers' nurseries would wrap an exception into groups.
        result = await outcome.acapture(work, catalogue, stack)
    return result.unwrap()
