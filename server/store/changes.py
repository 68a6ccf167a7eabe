"""Finds instruments that any process changed in the catalogue while the server runs.

It looks every few seconds. So it finds a change of any program without a notice: Redis may be unused,
or a notice may be lost. A notice makes it look at once.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Protocol

import structlog
import trio

from server.quotes.identity import former_symbols
from server.quotes.snapshot import Snapshot
from server.store.cache import Cache
from server.store.catalogue import BATCH_ROWS, Catalogue, Change, StoreUnavailable
from server.store.component import Component
from server.store.loader import Loader

LOOK_INTERVAL = 2.0
"""Seconds between two looks. Each is a lookup by index, and most find nothing."""

log = structlog.get_logger()


class Listings(Protocol):
    """The holder of instruments in memory: the fan-out."""

    def holds(self, symbol: str) -> bool:
        """Return whether it holds the symbol, or would if the symbol existed."""

    def unchecked(self) -> Sequence[str]:
        """Take out the symbols that other instances listed, perhaps with older data."""

    async def relist(self, snapshots: Sequence[Snapshot]) -> None:
        """Take over the reference data of listed instruments, and prices that no feed has moved."""

    async def follow(self, rows: Sequence[Snapshot]) -> None:
        """Rename the instruments that have another symbol in `rows`."""

    async def rename(self, symbol: str, row: Snapshot) -> None:
        """Drop an instrument that is listed in another row now, and move its subscribers there."""

    async def delist(self, symbols: Sequence[str]) -> None:
        """Drop instruments that are no longer listed, and accept them from no other source."""


class Changes:
    """Tells the fan-out about changed instruments. `database` has the catalogue's breaker.

    Another program may overwrite the price of a symbol that a feed has moved. `rewrite` then makes the
    store write the feed's price again.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        database: Component,
        cache: Cache,
        loader: Loader,
        rewrite: Callable[[Sequence[str]], None],
    ) -> None:
        self._catalogue = catalogue
        self._database = database
        self._cache = cache
        self._loader = loader
        self._rewrite = rewrite
        self._wake = trio.Event()
        self._looked = trio.Event()
        self._looking = False
        self._mark: int | None = None
        self._seen: set[Change] = set()
        self._unchecked: set[str] = set()

    def look(self, symbols: Iterable[str] = ()) -> None:
        """Look now instead of at the next interval, and read `symbols` even if they did not change."""
        self._unchecked.update(symbols)
        self._wake.set()

    async def finish(self) -> None:
        """Look once more, now, while `run` runs. Wait until that is done, or the database fails."""
        looks = 2 if self._looking else 1
        self._wake.set()
        for _ in range(looks):
            await self._looked.wait()

    async def run(self, listings: Listings) -> None:
        """Look until cancelled, and tell `listings` what changed."""
        while True:
            self._looking = True
            with suppress(StoreUnavailable):
                await self._database.ask(partial(self._look, listings))
            self._looking = False
            self._looked.set()
            self._looked = trio.Event()
            with trio.move_on_after(LOOK_INTERVAL):
                await self._wake.wait()
            self._wake = trio.Event()

    async def _look(self, listings: Listings) -> None:
        mark, found = await self._catalogue.changes(self._mark)
        if self._mark is None:
            found = found + await self._missed()
        new = [change for change in found if change not in self._seen]
        await self._follow(new, listings)
        for start in range(0, len(new), BATCH_ROWS):
            await self._take_over(new[start : start + BATCH_ROWS], listings)
        foreign = set(listings.unchecked())
        self._unchecked |= foreign
        while self._unchecked:
            batch = list(islice(self._unchecked, BATCH_ROWS))
            rows = await self._catalogue.find([each for each in batch if listings.holds(each)])
            if taken := [row for row in rows if row.symbol in foreign and row.adjustments]:
                # Another instance's state may be from before a rename that this one has noticed.
                await listings.follow(taken)
            await listings.relist(rows)
            self._unchecked.difference_update(batch)
        # Only now, so that a failed change is found again by the next look.
        self._mark, self._seen = mark, set(found)
        with suppress(StoreUnavailable):
            await self._cache.set_mark(mark, self._loader.ttl)

    async def _follow(self, changes: Sequence[Change], listings: Listings) -> None:
        """Rename instruments all at once, as one may have the former symbol of another."""
        renamed = [each.renamed_to for each in changes if each.delisted and each.renamed_to]
        for symbol, delisted, *_, adjustments in changes:
            former = [] if delisted else [each for each, _ in former_symbols(adjustments)]
            if former and any(map(listings.holds, [symbol, *former])):
                renamed.append(symbol)
        rows = list[Snapshot]()
        for start in range(0, len(renamed), BATCH_ROWS):
            rows += await self._catalogue.find(renamed[start : start + BATCH_ROWS])
        if rows:
            await listings.follow(rows)

    async def _missed(self) -> list[Change]:
        """Return the changes since a server last removed them from the shared cache."""
        mark = None
        with suppress(StoreUnavailable):
            mark = await self._cache.get_mark()
        return [] if mark is None else (await self._catalogue.changes(mark))[1]

    async def _take_over(self, changes: Sequence[Change], listings: Listings) -> None:
        symbols = [change.symbol for change in changes]
        await self._forget(symbols)
        gone = {change.symbol: change.renamed_to for change in changes if change.delisted}
        await self._rename(gone, listings)
        held = [change for change in changes if listings.holds(change.symbol)]
        if listed := [change.symbol for change in held if not change.delisted]:
            found = await self._catalogue.find(listed)
            await listings.relist(found)
            self._rewrite([row.symbol for row in found if self._is_overwritten(row)])
        if gone:
            await listings.delist([*gone])
        # Again, as a value cached meanwhile may have the old name.
        await self._forget(symbols)
        if held:
            log.info("instruments changed", changed=len(changes), held=len(held))

    def _is_overwritten(self, row: Snapshot) -> bool:
        live = self._loader.live(row.symbol)
        if live is None or not live.version == row.version > 1:
            return False
        return live.last_quote != row.last_quote

    async def _rename(self, gone: dict[str, str | None], listings: Listings) -> None:
        """Rename the symbols among the `gone` ones that have a successor, and take them out there."""
        successors = [new for new in gone.values() if new]
        rows = {row.symbol: row for row in await self._catalogue.find(successors)}
        for symbol, new in [*gone.items()]:
            if new in rows:
                await listings.rename(symbol, rows[new])
                del gone[symbol]

    async def _forget(self, symbols: Sequence[str]) -> None:
        self._loader.invalidate(symbols)
        # If the cache fails, its values expire with their TTL.
        with suppress(StoreUnavailable):
            await self._cache.delete_many(symbols)
