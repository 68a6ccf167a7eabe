"""Lists a symbol in the hub when a client asks for it for the first time."""

from collections.abc import Iterable, Mapping, Sequence
from time import time_ns
from typing import Protocol

import trio

from server.fanout.hub import Hub
from server.quotes.snapshot import Snapshot
from server.store.catalogue import BATCH_ROWS, Catalogue, StoreUnavailable
from server.store.loader import Loader, Payer

PAGE_TIMEOUT = 4.0
"""Seconds for all pages of the catalogue. 100,000 instruments take 1.1 s; a handshake has five."""


class Cluster(Protocol):
    """The instances that share one sequence of versions for each symbol."""

    async def agree(self, snapshots: Sequence[Snapshot]) -> None:
        """List symbols in the hub, in the cluster's state of them if that is newer."""

    async def forget(self, symbols: Sequence[str]) -> None:
        """Forget symbols, so that no instance lists them from the cluster's state."""


class Rules(Protocol):
    """The rules for published prices, which know symbols by their names."""

    def rename(self, symbol: str, new: str, now: int) -> None:
        """Go on with what is known of `symbol` under its new name. `now` is in microseconds."""

    def forget(self, symbols: Sequence[str]) -> None:
        """Forget symbols that were delisted."""


class Directory:
    """Stands between the hub, which has the symbols in memory, and the store, which has all.

    For the first subscriber to `*` it lists the whole catalogue, which costs 1.3 KB and 11 µs a symbol.
    Few servers ever need that. `rules`: those for published prices, if the server takes any.
    """

    def __init__(
        self, hub: Hub, loader: Loader, catalogue: Catalogue, cluster: Cluster | None = None
    ) -> None:
        self._hub = hub
        self._loader = loader
        self._catalogue = catalogue
        self._cluster = cluster
        self._listing = trio.Lock()
        self.complete = False
        self.rules: Rules | None = None

    async def list_symbols(
        self, symbols: Sequence[str], payer: Payer | None = None
    ) -> Sequence[str]:
        """List those of `symbols` that exist. Return those about which the store gave no answer.

        Errors: TooManyLookups, if the `payer` asks for too many lookups.
        """
        loaded = await self._loader.load(symbols, payer=payer)
        found = loaded.found.values()
        # An instance that has not noticed a delisting yet may have cached the symbol. All of them
        # notice a listing.
        await self._list([each for each in found if each.symbol not in self._hub.delisted])
        return loaded.unavailable

    async def list_everything(self) -> None:
        """List the whole catalogue, once. Errors: StoreUnavailable."""
        with trio.move_on_after(PAGE_TIMEOUT):
            async with self._listing:
                after = ""
                while not self.complete:
                    page = await self._catalogue.page(after, BATCH_ROWS)
                    await self._list(page)
                    if len(page) < BATCH_ROWS:
                        self.complete = True
                    else:
                        after = page[-1].symbol
        if not self.complete:
            raise StoreUnavailable("the catalogue could not be read in time")

    async def _list(self, snapshots: Sequence[Snapshot]) -> None:
        if self._cluster:
            await self._cluster.agree(snapshots)
        else:
            self._hub.list_snapshots(snapshots)

    async def list_new(self, snapshots: Sequence[Snapshot]) -> None:
        """List symbols that no store has, unless they were listed meanwhile."""
        await self._list([each for each in snapshots if each.symbol not in self._hub.topics])

    def holds(self, symbol: str) -> bool:
        """Whether the symbol is or was listed, or has to be because all are. See `Listings`."""
        was = symbol in self._hub.topics or symbol in self._hub.delisted
        return was or self.complete or self._listing.locked()

    def unchecked(self) -> list[str]:
        """Take out the symbols that came from other instances since the last call. See `Listings`."""
        symbols = list(self._hub.unchecked)
        self._hub.unchecked.clear()
        return symbols

    async def relist(self, snapshots: Sequence[Snapshot]) -> None:
        """Take over reference data, list new symbols, and tell subscribers."""
        self._hub.relist(snapshots)
        await self._list(snapshots)

    async def follow(self, rows: Sequence[Snapshot]) -> None:
        """Move quotes and subscribers of instruments that have another symbol in `rows`."""
        await self._follow(self._hub.follow(rows, certain=True))

    async def rename(self, symbol: str, row: Snapshot) -> None:
        """Move a symbol's quote and subscribers to the instrument's new `row`."""
        self._hub.rename(symbol, row)
        await self._follow({symbol: row.symbol})

    async def _follow(self, changed: Mapping[str, str | None]) -> None:
        """Rename or forget what the rules and the cluster know, as the hub did."""
        if self.rules:
            gone = [symbol for symbol, new in changed.items() if new is None]
            self.rules.forget(gone)
            for symbol, new in changed.items():
                if new is not None:
                    self.rules.rename(symbol, new, time_ns() // 1000)
        await self._forget(changed)

    async def delist(self, symbols: Sequence[str]) -> None:
        """Remove symbols, also from their subscribers."""
        self._hub.delist(symbols)
        if self.rules:
            self.rules.forget(symbols)
        await self._forget(symbols)

    async def _forget(self, symbols: Iterable[str]) -> None:
        """Make the cluster forget symbols, except those that another instrument has now."""
        gone = [symbol for symbol in symbols if symbol not in self._hub.topics]
        if self._cluster and gone:
            await self._cluster.forget(gone)
