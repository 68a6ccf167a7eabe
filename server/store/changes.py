"""Notices which instruments changed in the catalogue, whoever changed them, while the server runs.

It looks every few seconds, so that an import or another service's statement is seen though nobody
tells, as without Redis, or a notice was lost; a notice makes it look at once.
"""

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Protocol

import structlog
import trio

from server.quotes.snapshot import Snapshot
from server.store.cache import Cache
from server.store.catalogue import BATCH_ROWS, Catalogue, Change, StoreUnavailable
from server.store.component import Component
from server.store.loader import Loader

LOOK_INTERVAL = 2.0
"""Seconds between two looks, each a lookup by index that mostly finds nothing."""

log = structlog.get_logger()


class Listings(Protocol):
    """Whoever holds instruments in memory."""

    def holds(self, symbol: str) -> bool:
        """Whether it holds the symbol, or would if the symbol existed."""

    async def relist(self, snapshots: Sequence[Snapshot]) -> None:
        """Take over the reference data of instruments that are listed."""

    async def delist(self, symbols: Sequence[str]) -> None:
        """Let go of instruments that are not listed any more, and take them from nobody else."""


class Changes:
    """`database`: the component whose breaker is asked before the catalogue is."""

    def __init__(
        self, catalogue: Catalogue, database: Component, cache: Cache, loader: Loader
    ) -> None:
        self._catalogue = catalogue
        self._database = database
        self._cache = cache
        self._loader = loader
        self._wake = trio.Event()
        self._mark: int | None = None
        self._seen: set[Change] = set()

    def look(self) -> None:
        """Look now, and not when the next look is due."""
        self._wake.set()

    async def run(self, listings: Listings) -> None:
        """Look until cancelled, and tell `listings`."""
        while True:
            with suppress(StoreUnavailable):
                await self._database.ask(partial(self._look, listings))
            with trio.move_on_after(LOOK_INTERVAL):
                await self._wake.wait()
            self._wake = trio.Event()

    async def _look(self, listings: Listings) -> None:
        mark, found = await self._catalogue.changes(self._mark)
        new = [change for change in found if change not in self._seen]
        for start in range(0, len(new), BATCH_ROWS):
            await self._take_over(new[start : start + BATCH_ROWS], listings)
        # Only now, so that what could not be taken over is found again.
        self._mark, self._seen = mark, set(found)

    async def _take_over(self, changes: Sequence[Change], listings: Listings) -> None:
        symbols = [change.symbol for change in changes]
        await self._forget(symbols)
        held = [change for change in changes if listings.holds(change.symbol)]
        if listed := [change.symbol for change in held if not change.delisted]:
            await listings.relist(await self._catalogue.find(listed))
        if delisted := [change.symbol for change in changes if change.delisted]:
            await listings.delist(delisted)
        await self._forget(symbols)  # what was cached meanwhile may have the old name
        if held:
            log.info("instruments changed", changed=len(changes), held=len(held))

    async def _forget(self, symbols: Sequence[str]) -> None:
        self._loader.invalidate(symbols)
        with suppress(StoreUnavailable):  # then what is cached lives for its TTL
            await self._cache.delete_many(symbols)
