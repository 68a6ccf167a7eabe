"""Writes last prices to the catalogue every few seconds, so that a restart continues from them.

Nothing is queued: what is not written yet is seen from the versions, so a database that is down
delays the newest price of each symbol and costs no memory.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Protocol

import trio

from server.quotes.snapshot import Snapshot
from server.store.catalogue import BATCH_ROWS, Catalogue, StoreUnavailable
from server.store.component import Component
from server.store.stats import StoreStats


class LiveSymbol(Protocol):
    """A symbol in memory, as the fan-out has it."""

    version: int
    delisted: bool

    @property
    def symbol(self) -> str: ...

    @property
    def watched(self) -> bool:
        """Whether any client gets its updates."""

    def snapshot(self) -> Snapshot:
        """What is to be kept of it."""


class WriteBack:
    """`live` gives all symbols in memory; `written` is told what was written."""

    def __init__(
        self,
        catalogue: Catalogue,
        writing: Component,
        live: Callable[[], Iterable[LiveSymbol]],
        written: Callable[[Sequence[Snapshot]], None],
        stats: StoreStats,
    ) -> None:
        self._catalogue = catalogue
        self._writing = writing
        self._live = live
        self._written = written
        self._stats = stats
        self._versions: dict[str, int] = {}

    async def run(self, interval: float) -> None:
        """Write every `interval` seconds until cancelled."""
        while True:
            await trio.sleep(interval)
            await self.flush()

    async def flush(self) -> bool:
        """Write what moved since it was written; False if the database did not take it all."""
        moved = [each for each in self._live() if each.version > self._versions.get(each.symbol, 1)]
        for start in range(0, len(moved), BATCH_ROWS):
            batch = moved[start : start + BATCH_ROWS]
            snapshots = [each.snapshot() for each in batch]
            watched = [each.symbol for each in batch if each.watched]
            try:
                await self._writing.ask(partial(self._catalogue.save, snapshots, watched))
            except StoreUnavailable:
                return False
            self._versions |= {each.symbol: each.version for each in snapshots}
            self._stats.saved += len(snapshots)
            # As they are now: one may have been renamed meanwhile, or delisted and not to be found.
            self._written([each.snapshot() for each in batch if not each.delisted])
        return True
