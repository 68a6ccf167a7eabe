"""What commands do to a listed instrument: its share is split, or it gets another symbol."""

from collections.abc import Callable
from contextlib import AsyncExitStack

from server.quotes.snapshot import Snapshot
from server.store.catalogue import Catalogue
from server.store.store import StoreOptions, invalidate_everywhere, open_cache, run_alone


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
