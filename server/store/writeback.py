"""Writes last prices to the catalogue every few seconds, so that a restart continues from them.

Nothing is queued: what is not written yet is seen from the versions, so a database that is down
delays the newest price of each symbol and costs no memory. A row that the database refuses holds
nobody up: its batch is written in halves until it is alone, and then it is left out for a while.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Protocol

import trio

from server.quotes.snapshot import Snapshot
from server.store.catalogue import BATCH_ROWS, Catalogue, RowsRefused, StoreUnavailable
from server.store.component import Component
from server.store.stats import StoreStats

REFUSED_INTERVAL = 60.0
"""Seconds until a row that the database refused is tried again; doubled each time."""

LONGEST_INTERVAL = 3600.0
"""Seconds: then the row is tried again, as somebody may have mended what was in its way."""


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
        self._refused: dict[str, tuple[float, float]] = {}

    async def run(self, interval: float) -> None:
        """Write every `interval` seconds until cancelled."""
        while True:
            await trio.sleep(interval)
            await self.flush()

    async def flush(self) -> bool:
        """Write what moved since it was written; False if the database did not take it all."""
        moved = [each for each in self._live() if each.version > self._versions.get(each.symbol, 1)]
        due = [each for each in moved if self._is_due(each.symbol)]
        for start in range(0, len(due), BATCH_ROWS):
            batch = due[start : start + BATCH_ROWS]
            snapshots = [each.snapshot() for each in batch]
            watched = {each.symbol for each in batch if each.watched}
            try:
                await self._writing.ask(partial(self._save, snapshots, watched))
            except StoreUnavailable:
                return False
            # As they are now: one may have been renamed meanwhile, or delisted and not to be found.
            self._written([each.snapshot() for each in batch if not each.delisted])
        return len(due) == len(moved) and not any(each.symbol in self._refused for each in due)

    async def _save(self, snapshots: Sequence[Snapshot], watched: set[str]) -> None:
        """Write all of `snapshots` that the database takes. Errors: StoreUnavailable."""
        symbols = [each.symbol for each in snapshots]
        try:
            await self._catalogue.save(snapshots, [each for each in symbols if each in watched])
        except RowsRefused as error:
            if len(snapshots) == 1:
                self._put_off(symbols[0], str(error))
                return
            middle = len(snapshots) // 2
            await self._save(snapshots[:middle], watched)
            await self._save(snapshots[middle:], watched)
            return
        self._versions |= {each.symbol: each.version for each in snapshots}
        self._stats.saved += len(snapshots)
        for symbol in symbols:
            self._refused.pop(symbol, None)

    def _is_due(self, symbol: str) -> bool:
        retry_at, _ = self._refused.get(symbol, (0.0, 0.0))
        return retry_at <= trio.current_time()

    def _put_off(self, symbol: str, problem: str) -> None:
        _, interval = self._refused.get(symbol, (0.0, REFUSED_INTERVAL / 2))
        interval = min(2 * interval, LONGEST_INTERVAL)
        self._refused[symbol] = trio.current_time() + interval, interval
        self._stats.invalid.report("write_back", symbol, problem)
