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

    async def upsert(catalogue: Catalogue) -> None:
        await catalogue.upsert(instruments, done, anew=anew)

    await _change(options, [each.symbol for each in instruments], upsert)


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
    return await _change(
        options,
        symbols,
        lambda catalogue: catalogue.delist(symbols),
        done=lambda missing: not missing,
    )


async def adjust(
    options: StoreOptions, symbol: str, change: Callable[[Snapshot], Snapshot]
) -> Snapshot:
    """Replace a listed row by the result of `change`. Make every instance look at it, and return it.

    Errors: ChangeRefused, StoreUnavailable.
    """
    return await _change(options, [symbol], lambda catalogue: catalogue.adjust(symbol, change))


async def rename(options: StoreOptions, old: str, new: str) -> None:
    """Give an instrument another symbol on every instance. Errors: ChangeRefused, StoreUnavailable."""
    await _change(options, [old, new], lambda catalogue: catalogue.rename(old, new))


async def _change(
    options: StoreOptions,
    symbols: Sequence[str],
    change: Callable[[Catalogue], Awaitable[T]],
    done: Callable[[T], bool] = lambda _: True,
) -> T:
    """Migrate and change the catalogue. Make every instance look at `symbols` if that is `done`."""

    async def work(catalogue: Catalogue, stack: AsyncExitStack) -> T:
        cached = await open_cache(options, stack)
        await catalogue.migrate()
        result = await change(catalogue)
        if done(result):
            await _invalidate_everywhere(*cached, symbols)
        return result

    return await run_alone(options, work)


async def _invalidate_everywhere(
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
