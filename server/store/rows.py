"""Turns a database's rows into snapshots. Rows that are not records are reported and left out."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import TypeVar

from server.invalid import InvalidRecords, Source
from server.quotes.record import read_row, read_symbol
from server.quotes.snapshot import Snapshot
from server.store.catalogue import BATCH_ROWS, Change

Row = Sequence[object]
"""The fields of `Snapshot` in their order; the first is the symbol."""

K = TypeVar("K")


class Rows:
    """Reads the rows of one database, `source`."""

    def __init__(self, source: Source, invalid: InvalidRecords) -> None:
        self._source = source
        self._invalid = invalid

    def snapshots(self, rows: Iterable[Row]) -> list[Snapshot]:
        """Return a snapshot for each valid row."""
        read = (self._invalid.read(self._source, row[0], partial(read_row, row)) for row in rows)
        return [snapshot for snapshot in read if snapshot is not None]

    def symbols(self, values: Iterable[object]) -> list[str]:
        """Return the values that are symbols."""
        return [value for value in values if self._is_symbol(value) and isinstance(value, str)]

    def changes(self, changes: Iterable[Change]) -> list[Change]:
        """Return the changes whose symbol is valid."""
        return [change for change in changes if self._is_symbol(change.symbol)]

    async def page(
        self, read: Callable[[K, int], Awaitable[Sequence[tuple[K, Row]]]], after: K, limit: int
    ) -> list[Snapshot]:
        """Return up to `limit` snapshots behind `after`; fewer only at the table's end.

        Arguments:
            read: returns the rows behind a key, in order and each with its key. Its second argument is
                the most rows to return.
        """
        found: list[Snapshot] = []
        wanted = limit
        while True:
            rows = await read(after, wanted)
            found += self.snapshots(row for _, row in rows)
            if len(found) >= limit or len(rows) < wanted:
                return found[:limit]
            after, wanted = rows[-1][0], BATCH_ROWS

    def _is_symbol(self, value: object) -> bool:
        return self._invalid.read(self._source, value, partial(read_symbol, value)) is not None
