"""Writes bars to the tables every few seconds, and deletes old ones.

Final bars wait in memory until they are written. Open ones are written as they are, so that a restart
goes on from them. It has no queue of its own: `Minutes` knows what is not written, and bounds it.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from time import time
from typing import Protocol

import structlog
import trio

from server.history.bar import MinuteBar
from server.quotes.traded import MINUTE_US
from server.store.bars import BarTables, Key
from server.store.catalogue import BATCH_ROWS, RowsRefused, StoreUnavailable
from server.store.component import Component
from server.store.stats import StoreStats

TEND_INTERVAL = 3600.0
"""Seconds between two looks for bars to delete and months to rewrite."""

FIRST_INTERVAL = 60.0
"""Seconds until the next look if no trade has come yet."""

STEP_PAUSE = 0.05
"""Seconds between two steps of a deletion, in which others write."""

log = structlog.get_logger()


class Unwritten(Protocol):
    """The newest minutes, in memory. Minutes count from the Unix epoch."""

    newest_us: int
    whole_from: int
    followed: bool

    @property
    def missing(self) -> Sequence[Key]:
        """Return the bars that memory needs from the tables, as late trades change them."""

    def restore(self, bars: Iterable[MinuteBar], missing: Iterable[Key] = ()) -> object:
        """Go on from stored bars. There are no others of those that were `missing`."""

    def unwritten(self, limit: int) -> list[MinuteBar]:
        """Return final bars that are not written."""

    def written(self, bars: Iterable[MinuteBar]) -> None:
        """Note that these bars are written."""

    def open_bars(self) -> list[MinuteBar]:
        """Return the bars that are not final."""


@dataclass(kw_only=True)
class BarWriter:
    """`reading` and `writing` have the breakers. `may_write` returns False while another instance
    writes the same bars to the same tables. `write_symbols` adds the instruments that the catalogue
    does not have yet, as the tables would refuse their bars.
    """

    tables: BarTables
    reading: Component
    writing: Component
    minutes: Unwritten
    may_write: Callable[[], bool]
    write_symbols: Callable[[], Awaitable[object]]
    stats: StoreStats
    _open: dict[Key, MinuteBar] = field(default_factory=dict, init=False)
    _resumed: bool = field(default=False, init=False)
    _restoring: trio.Lock = field(default_factory=trio.Lock, init=False)

    @property
    def has_unwritten(self) -> bool:
        """Whether memory has bars or trades that the tables do not have."""
        return bool(self.minutes.unwritten(1) or self.minutes.open_bars() or self.minutes.missing)

    async def flush(self) -> bool:
        """Write what changed; False if that failed. First, go on from the open bars of the last run."""
        try:
            if not self.may_write():
                self._open = {}
                return True
            # An instance that does not write gets the bars from the one that does.
            await self._restore()
            while (batch := self.minutes.unwritten(BATCH_ROWS)) and self.may_write():
                await self.write_symbols()
                await self.writing.ask(partial(self._save, batch))
                self.minutes.written(batch)
            now = {(each.symbol, each.minute): each for each in self.minutes.open_bars()}
            changed = [each for key, each in now.items() if self._open.get(key) != each]
            for start in range(0, len(changed), BATCH_ROWS):
                if self.may_write():
                    part = changed[start : start + BATCH_ROWS]
                    await self.writing.ask(partial(self._save, part))
            self._open = now
        except StoreUnavailable:
            return False
        return True

    async def settle(self) -> None:
        """Count all trades of stored minutes now, as somebody reads them. Errors: StoreUnavailable."""
        if self.minutes.missing and self.may_write():
            await self._restore()

    async def tend(self, keep: float) -> None:
        """Delete bars older than `keep` seconds, and prepare the tables, until cancelled.

        The newest bar is now, so that a replay of an old day is kept.
        """
        while True:
            now = min(int(time() * 1e6), self.minutes.newest_us) // MINUTE_US
            if now and self.may_write():
                with suppress(StoreUnavailable):
                    await self._delete(now - int(keep // 60))
                    await self.writing.ask(partial(self.tables.tidy, now))
            await trio.sleep(TEND_INTERVAL if now else FIRST_INTERVAL)

    async def _delete(self, before: int) -> None:
        while count := await self.writing.ask(partial(self.tables.delete, before)):
            self.stats.bars_deleted += count
            await trio.sleep(STEP_PAUSE)

    async def _restore(self) -> None:
        """Read the bars that late trades change, and once the open ones. Errors: StoreUnavailable."""
        async with self._restoring:
            minutes = self.minutes
            if not self._resumed:
                found = await self.reading.ask(self.tables.open_bars)
                if minutes.followed:
                    minutes.restore(found)
                else:
                    # The tables have no other bars of the minute of the start.
                    started = minutes.whole_from - 1
                    minutes.restore(found, [key for key in minutes.missing if key[1] >= started])
                    minutes.whole_from = min(minutes.whole_from, max(started, 0))
                self._resumed = True
            while missing := minutes.missing[:BATCH_ROWS]:
                found = await self.reading.ask(partial(self.tables.find, missing))
                minutes.restore(found, missing)

    async def _save(self, bars: Sequence[MinuteBar]) -> None:
        """Write the bars that the database accepts. Errors: StoreUnavailable."""
        try:
            unlisted = {*await self.tables.write(bars)}
        except RowsRefused as error:
            if len(bars) > 1:
                middle = len(bars) // 2
                await self._save(bars[:middle])
                await self._save(bars[middle:])
                return
            unlisted = {bars[0].symbol}
            self._report(bars[0].symbol, str(error))
        else:
            for symbol in unlisted:
                self._report(symbol, "the catalogue does not have the symbol of a bar")
        lost = sum(each.symbol in unlisted for each in bars)
        self.stats.bars_refused += lost
        self.stats.bars_written += len(bars) - lost

    def _report(self, symbol: str, problem: str) -> None:
        self.stats.invalid.report("write_back", symbol, problem)
