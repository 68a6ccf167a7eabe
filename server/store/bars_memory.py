"""Bars in memory, lost with the process: for tests, and if no file can be written."""

from bisect import bisect_right
from collections.abc import Sequence
from functools import partial, reduce
from itertools import groupby

import msgspec

from server.history.bar import MinuteBar
from server.history.timeframe import joined
from server.store.bars import Key, Wanted

KEPT_BARS = 20_000
"""The number of bars kept: 40 minutes of 500 symbols, 8 MB."""


class MemoryBars:
    """See `BarTables`."""

    def __init__(self) -> None:
        self._bars: dict[tuple[str, int], MinuteBar] = {}

    async def write(self, bars: Sequence[MinuteBar]) -> list[str]:
        for bar in bars:
            old = self._bars.pop((bar.symbol, bar.minute), bar)
            newer = not old.final or (bar.final and (bar.rev, bar.count) > (old.rev, old.count))
            self._bars[bar.symbol, bar.minute] = bar if newer else old
        for key in [*self._bars][:-KEPT_BARS]:
            del self._bars[key]
        return []

    async def read(self, wanted: Wanted) -> list[MinuteBar]:
        inside = sorted(
            (
                each
                for (symbol, minute), each in self._bars.items()
                if symbol == wanted.symbol
                and wanted.first <= minute < wanted.end
                and minute not in wanted.without
                and (each.count or wanted.size > 1)
            ),
            key=lambda each: each.minute,
        )
        if wanted.size > 1:
            inside = [
                msgspec.structs.replace(reduce(joined, minutes), minute=slot)
                for slot, minutes in groupby(inside, partial(_slot, wanted))
            ]
        return inside[::-1][: wanted.limit] if wanted.descending else inside[: wanted.limit]

    async def find(self, keys: Sequence[Key]) -> list[MinuteBar]:
        return [self._bars[key] for key in keys if key in self._bars]

    async def open_bars(self) -> list[MinuteBar]:
        return []

    async def delete(self, _: int) -> int:
        """Delete nothing, as `write` bounds the memory."""
        return 0

    async def tidy(self, _: int) -> None:
        """Do nothing."""


def _slot(wanted: Wanted, bar: MinuteBar) -> int:
    start = wanted.starts[bisect_right(wanted.starts, bar.minute) - 1]
    return start + (bar.minute - start) // wanted.size * wanted.size
