"""The catalogue's interface and errors. It holds all instruments and their last prices."""

from collections.abc import Callable, Iterable, Sequence
from time import time_ns
from typing import NamedTuple, Protocol

from server.quotes.adjustment import begun_anew
from server.quotes.instrument import Instrument
from server.quotes.snapshot import Snapshot, opening_snapshot
from server.store.bars import BarTables

BATCH_ROWS = 1000
"""Rows of one statement or page: some 5 ms of work, after which other tasks run."""


class StoreUnavailable(Exception):
    """The database or the cache gave no answer. Trying later may help.

    Drivers' own errors never leave the store: it raises this one in their place.
    """


class StoreMisconfigured(StoreUnavailable):
    """Trying later does not help. The operator must correct the database's address, or run the newer
    version of the server to which the schema belongs.
    """


class StatementRefused(StoreUnavailable):
    """The database answers, but refuses this statement. It may accept others."""


class RowsRefused(StatementRefused):
    """The database answers, but refuses a row. It may accept other rows."""


def reason_of(error: BaseException) -> str:
    """Return what went wrong in words. Some errors, such as time-outs, have none but their name."""
    return str(error) or type(error).__name__


def imported_rows(instruments: Iterable[Instrument], *, anew: bool) -> list[Snapshot]:
    """Return the rows that an import writes. If they begin `anew`, their prices are of now."""
    now = time_ns() // 1000
    return [begun_anew(each, now) if anew else opening_snapshot(each) for each in instruments]


class Change(NamedTuple):
    """A symbol was listed or delisted, or its reference data changed. `mark` orders changes. A symbol
    that was renamed is delisted, and its instrument has the symbol `renamed_to`. `adjustments` are the
    row's.
    """

    symbol: str
    delisted: bool
    mark: int
    renamed_to: str | None = None
    adjustments: str = ""


class PoolUse(NamedTuple):
    """Connections of a database's pool: in use now, and at most."""

    used: int
    size: int


class Catalogue(Protocol):
    """Postgres, SQLite or memory. Every method may raise StoreUnavailable.

    Symbols are in upper case. Results are unordered unless a method says otherwise. Rows that
    `quotes.record` does not accept as records are left out.
    """

    @property
    def name(self) -> str:
        """Return the catalogue's name for metrics and log."""

    @property
    def bars(self) -> BarTables:
        """Return the tables of bars in the same database."""

    def pool_use(self) -> PoolUse | None:
        """Count the pool's connections; None if the database has no pool."""

    async def migrate(self) -> list[str]:
        """Bring the schema up to date and return the names of the migrations applied now.

        Errors: StoreMisconfigured.
        """

    async def find(self, symbols: Sequence[str]) -> list[Snapshot]:
        """Return the rows of those symbols that exist, in one query."""

    async def page(self, after: str, limit: int) -> list[Snapshot]:
        """Return up to `limit` rows with symbols above `after`, ordered by symbol.

        Fewer rows mean the end of the catalogue, even if rows were left out.
        """

    async def search(self, query: str, limit: int) -> list[Snapshot]:
        """Return instruments that match `query`, the best first, as `search.rank` ranks them.

        A symbol matches if it begins with the query, in any spelling. A name matches if each word of
        the query begins one of its words. If nothing matches, one typing error in a word is forgiven.
        """

    async def recently_watched(self, limit: int) -> list[str]:
        """Return symbols, the most recently watched first."""

    async def upsert(
        self, instruments: Sequence[Instrument], done: Callable[[int], None], *, anew: bool = False
    ) -> None:
        """List `instruments`, all or none. An instrument that was traded keeps its last price. If they
        begin `anew`, none does: their symbols belonged to others.

        No symbol may occur twice. `done` gets the number written so far after each batch. If the call
        is cancelled before its end, it lists none.
        """

    async def delist(self, symbols: Sequence[str]) -> list[str]:
        """Delist `symbols`, all or none, and return those that were not listed.

        If any was not listed, nothing was done. `upsert` lists a symbol again.
        """

    async def adjust(self, symbol: str, change: Callable[[Snapshot], Snapshot]) -> Snapshot:
        """Replace the row of a listed symbol by the result of `change`, and return that.

        No other writer comes between. Errors: ChangeRefused, and those of `change`.
        """

    async def rename(self, old: str, new: str) -> None:
        """Give the instrument `old` the symbol `new`, with its last price. `old` is then delisted.

        Errors: ChangeRefused if `old` is not listed, or `new` is.
        """

    async def changes(self, since: int | None) -> tuple[int, list[Change]]:
        """Return the mark to continue from and the reference data changed since `since`, by any writer.

        With None, which a server begins with, return the delisted symbols. Changes at the mark itself
        may be returned twice. Prices are not reference data.
        """

    async def save(self, snapshots: Sequence[Snapshot], watched: Sequence[str]) -> None:
        """Write last prices, but never over a newer version or one of another list of adjustments. Note
        which symbols are watched.

        A symbol that the catalogue never had becomes listed. Errors: RowsRefused. After it, none of
        `snapshots` may be written.
        """
