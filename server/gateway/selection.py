"""Finds the topics for the names of symbols in a request or a command."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from server.fanout.topic import Topic
from server.gateway.budgets import Budgets
from server.gateway.directory import Directory
from server.quotes.instrument import normalize_symbol
from server.store.catalogue import StoreUnavailable
from server.store.loader import TooManyLookups

EVERYTHING = "*"
"""Stands for all symbols, also those added later."""

STORE_UNAVAILABLE = "the catalogue cannot be asked at the moment, try again"


class Selection(NamedTuple):
    """Names resolved to topics: each topic once, in the order of the names.

    The store gave no answer about the `unavailable` symbols. With `refused`, the user has spent the
    budget for lookups, and the store was not asked for the `unknown` symbols.
    """

    topics: list[Topic]
    unknown: list[str]
    everything: bool = False
    unavailable: Sequence[str] = ()
    refused: TooManyLookups | None = None


def select(names: Iterable[str], topics: Mapping[str, Topic]) -> Selection:
    """Find `names` among `topics`. EVERYTHING stands for all topics beside those named."""
    symbols = dict.fromkeys(normalize_symbol(name) for name in names)
    everything = EVERYTHING in symbols
    symbols.pop(EVERYTHING, None)
    known = [topics[symbol] for symbol in symbols if symbol in topics]
    unknown = [symbol for symbol in symbols if symbol not in topics]
    return Selection(known, unknown, everything)


def symbols_of(topics: Iterable[Topic]) -> list[str]:
    """Return the symbol of each topic."""
    return [topic.symbol for topic in topics]


class Selector(NamedTuple):
    """Finds symbols for all connections, in memory or else in the store."""

    topics: Mapping[str, Topic]
    directory: Directory
    budgets: Budgets

    def select(self, names: Iterable[str]) -> Selection:
        """Find the symbols in memory. Never waits."""
        return select(names, self.topics)

    def is_cold(self, selection: Selection) -> bool:
        """Whether the store has to be asked, because it may have symbols that memory does not have."""
        if selection.everything:
            return not self.directory.complete
        return bool(selection.unknown)

    async def resolve(self, names: Sequence[str], user: str) -> Selection:
        """Find symbols in memory and in the store, and charge `user` for the lookups."""
        selection = self.select(names)
        if selection.everything:
            try:
                await self.directory.list_everything()
            except StoreUnavailable:
                return Selection([], [], unavailable=[EVERYTHING])
            return self.select(names)
        if not selection.unknown:
            return selection
        payer = self.budgets.charge_cold(user, len(selection.unknown))
        try:
            unavailable = await self.directory.list_symbols(selection.unknown, payer)
        except TooManyLookups as error:
            return selection._replace(refused=error)
        selection = self.select(names)
        unknown = [symbol for symbol in selection.unknown if symbol not in unavailable]
        return selection._replace(unknown=unknown, unavailable=unavailable)
