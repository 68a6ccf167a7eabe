"""The catalogue: which instruments there are and what each last cost. The interface and its error."""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from server.quotes.instrument import Instrument, normalize_symbol
from server.quotes.snapshot import Snapshot

BATCH_ROWS = 1000
"""Rows of one statement or page: some 5 ms of work, after which others get their turn."""

SEARCH_CANDIDATES = 1000
"""Names looked at for one search: of a word that more names have, that many are ranked."""

_SEPARATORS = re.compile(r"[\x00-/:-@\[-`{-\x7f]+")
"""What parts words: everything in ASCII but letters and digits."""


class StoreUnavailable(Exception):
    """The database or the cache gave no answer; trying later may help. No driver's error gets past."""


class StoreMisconfigured(StoreUnavailable):
    """Trying later does not help, but whoever runs it: the database's address cannot be, or its schema
    is a newer version's.
    """


class RowsRefused(StoreUnavailable):
    """The database answers, but does not take a row that it was given; others it may take."""


class Change(NamedTuple):
    """A symbol was listed or delisted, or its reference data changed; `mark` tells changes apart."""

    symbol: str
    delisted: bool
    mark: int


class Catalogue(Protocol):
    """Postgres, SQLite or memory. Every method but `close` may raise StoreUnavailable.

    Symbols are in upper case. What is found is in no particular order unless that is said. Rows that
    are not what `quotes.record` takes for a record are left out.
    """

    @property
    def name(self) -> str:
        """What metrics and log call it."""

    async def migrate(self) -> list[str]:
        """Bring the schema up to date; the names of the migrations that this call applied.

        Errors: StoreMisconfigured.
        """

    async def find(self, symbols: Sequence[str]) -> list[Snapshot]:
        """The rows of those symbols that exist, in one query."""

    async def page(self, after: str, limit: int) -> list[Snapshot]:
        """Up to `limit` rows of symbols above `after`, by symbol: a page of the whole catalogue. Fewer
        are its end, also where rows were left out.
        """

    async def search(self, query: str, limit: int) -> list[Snapshot]:
        """Instruments whose symbol begins with `query` or whose name has words that begin with its
        words: the exact symbol first, then other symbols, names that begin so, other names.
        """

    async def recently_watched(self, limit: int) -> list[str]:
        """Symbols, the most recently watched first."""

    async def upsert(self, instruments: Sequence[Instrument], done: Callable[[int], None]) -> None:
        """List `instruments`, each once, all or none; the price of what was traded stays.

        `done` is told after each batch how many were written so far. Cancelled before its end, it lists
        none.
        """

    async def delist(self, symbols: Sequence[str]) -> list[str]:
        """Delist `symbols`, all or none; returns those that are not listed: then nothing was done.

        `upsert` lists a symbol again.
        """

    async def changes(self, since: int | None) -> tuple[int, list[Change]]:
        """What whoever it was changed since a mark, prices aside, and the mark to go on from; to
        begin with (None), what is delisted. What changed at a mark may be told twice.
        """

    async def save(self, snapshots: Sequence[Snapshot], watched: Sequence[str]) -> None:
        """Write last prices, but never over a newer version, and note which symbols are watched.

        A symbol that the catalogue never had is listed then. Errors: RowsRefused, and then none of
        `snapshots` may be written.
        """


def words(text: str) -> list[str]:
    """The words of a name or a search, in lower case."""
    return [word for word in _SEPARATORS.split(text.lower()) if word]


def search_rank(snapshot: Snapshot, query: str) -> tuple[int, str] | None:
    """Where a row stands among what a search finds; None if it is not found. Smaller is better."""
    prefix, wanted = normalize_symbol(query), words(query)
    if snapshot.symbol == prefix:
        return 0, snapshot.symbol
    if prefix and snapshot.symbol.startswith(prefix):
        return 1, snapshot.symbol
    has = words(snapshot.name)
    if not wanted or not all(any(word.startswith(each) for word in has) for each in wanted):
        return None
    return (2 if has[0].startswith(wanted[0]) else 3), snapshot.symbol
