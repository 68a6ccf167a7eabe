"""Writes last prices to the catalogue every few seconds, so that a restart continues from them.

It has no queue: a symbol is due if its version is newer than the written one. So while the database is
down, writes are delayed, but nothing takes memory. If the database refuses a row, the write-back halves
the batch until the row is alone. Then it leaves that row out for a while, and writes the others.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import trio

from server.quotes.snapshot import Snapshot
from server.store.catalogue import BATCH_ROWS, Catalogue, RowsRefused, StoreUnavailable
from server.store.component import Component
from server.store.stats import StoreStats

REFUSED_INTERVAL = 60.0
"""Seconds until a row that the database refused is tried again; doubled each time."""

LONGEST_INTERVAL = 3600.0
"""Longest wait in seconds. The write-back never gives a row up, as the operator may remove the cause.
"""


class LiveSymbol(Protocol):
    """A symbol in memory, held by the fan-out."""

    version: int
    delisted: bool

    @property
    def symbol(self) -> str: ...

    @property
    def watched(self) -> bool:
        """Return whether any client gets its updates."""

    def snapshot(self) -> Snapshot:
        """Return its current reference data and last price."""


class Refusal(NamedTuple):
    """A row that the database refused: when to try again, and the seconds waited for that."""

    retry_at: float
    interval: float


class WriteBack:
    """Writes symbols that `live` returns, and passes each written batch to `written`."""

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
        self._refused: dict[str, Refusal] = {}

    def rewrite(self, symbols: Iterable[str]) -> None:
        """Write the prices of `symbols` again, though their versions were written."""
        for symbol in symbols:
            self._versions.pop(symbol, None)

    async def flush(self) -> bool:
        """Write symbols that moved since they were written; False if some are still not written."""
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
            # Snapshots of now: meanwhile a symbol may have been renamed. A delisted one is left out.
            self._written([each.snapshot() for each in batch if not each.delisted])
        return len(due) == len(moved) and not any(each.symbol in self._refused for each in due)

    async def _save(self, snapshots: Sequence[Snapshot], watched: set[str]) -> None:
        """Write the `snapshots` that the database accepts. Errors: StoreUnavailable."""
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
        refusal = self._refused.get(symbol)
        return refusal is None or refusal.retry_at <= trio.current_time()

    def _put_off(self, symbol: str, problem: str) -> None:
        last = self._refused.get(symbol)
        interval = min(2 * last.interval, LONGEST_INTERVAL) if last else REFUSED_INTERVAL
        self._refused[symbol] = Refusal(trio.current_time() + interval, interval)
        self._stats.invalid.report("write_back", symbol, problem)
