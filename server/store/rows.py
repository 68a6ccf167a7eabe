"""What a database's rows amount to. Rows that are not records are reported and left out."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import TypeVar

from server.invalid import InvalidRecords, Source
from server.quotes.instrument import LARGEST_WHOLE
from server.quotes.record import read_row, read_symbol
from server.quotes.snapshot import LARGEST_PRICE, LATEST_US, Snapshot
from server.store.catalogue import BATCH_ROWS, Change

SOUND = (
    f"market_data.version BETWEEN 1 AND {LARGEST_WHOLE} "
    f"AND market_data.volume BETWEEN 0 AND {LARGEST_WHOLE} "
    f"AND market_data.quoted_at BETWEEN 0 AND {LATEST_US} "
    f"AND market_data.last_quote BETWEEN 0 AND {LARGEST_PRICE:.0f}"
)
"""SQL: whether a row's last price is one. A price that is not is overwritten by any write."""

Row = Sequence[object]
"""The fields of `Snapshot` in their order; the first is the symbol."""

K = TypeVar("K")


class Rows:
    """Reads what `source` answers."""

    def __init__(self, source: Source, invalid: InvalidRecords) -> None:
        self._source = source
        self._invalid = invalid

    def snapshots(self, rows: Iterable[Row]) -> list[Snapshot]:
        """The rows that are snapshots."""
        read = (self._invalid.read(self._source, row[0], partial(read_row, row)) for row in rows)
        return [snapshot for snapshot in read if snapshot is not None]

    def symbols(self, values: Iterable[object]) -> list[str]:
        """The values that are symbols."""
        return [value for value in values if self._is_symbol(value) and isinstance(value, str)]

    def changes(self, changes: Iterable[Change]) -> list[Change]:
        """The changes of what is a symbol."""
        return [change for change in changes if self._is_symbol(change.symbol)]

    async def page(
        self, read: Callable[[K, int], Awaitable[Sequence[tuple[K, Row]]]], after: K, limit: int
    ) -> list[Snapshot]:
        """Up to `limit` snapshots behind `after`; fewer only where the table ends, however many rows
        are left out.

        Arguments:
            read: gives up to so many rows behind a key, in order, each with its own key.
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
