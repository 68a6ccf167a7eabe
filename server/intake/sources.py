"""The sources of prices: what each has sent, which of them counts, and how well they do."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from server.intake.answer import Answer
from server.intake.kept import NO_SEQ, Row
from server.intake.once import ID_MEMORY_US, SeenSeqs
from server.quotes.instrument import LARGEST_WHOLE
from server.quotes.snapshot import Microseconds

MAX_SOURCES = 256
"""Sources that are remembered, beside those of SOURCE_PRIORITY and this server's own feeds. A new one
replaces one that was silent for five minutes.
"""

MAX_EPOCHS = 64
"""Epochs of one source that are remembered. A new one replaces the one used longest ago."""

RATE_WINDOW_US = 10_000_000
"""Microseconds over which a source's rate is counted."""

Result = Literal["accepted", "duplicate", "late", "held", "rejected"]


Seq = Annotated[int, Meta(ge=NO_SEQ, le=LARGEST_WHOLE)]
Place = tuple[Microseconds, Seq]


class Progress(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What has to survive a change of the leader: how far one symbol of one source has come.

    `floor`, `above`, in hexadecimal, and `unknown` are the sequence numbers that were counted; `trade`
    and `book` the times and numbers of the newest; `heard_at` is when the source last spoke of the
    symbol.
    """

    source: str
    epoch: str
    symbol: str
    floor: Seq
    above: Annotated[str, Meta(pattern=r"^[0-9a-f]{1,1024}\Z")]
    trade: Place
    book: Place
    heard_at: Microseconds = 0
    unknown: Seq = NO_SEQ


class Newest(msgspec.Struct, gc=False):
    """One symbol of one source: the newest trade's place, the newest book's, and when it was heard."""

    trade: tuple[int, int] = (0, -1)
    book: tuple[int, int] = (0, -1)
    heard_at: int = 0


class Source:
    """One source. All times are in microseconds since 1970.

    `number` stands for it in the kept trades. `lag_us`: the intake of its last object minus that
    object's time. `results` counts its objects.
    """

    def __init__(self, name: str, number: int, rank: int, now: int) -> None:
        self.name = name
        self.number = number
        self.rank = rank
        self.heard_at = now
        self.lag_us = 0
        self.results: Counter[Result] = Counter()
        self.symbols: dict[str, Newest] = {}
        # The epoch used last is `_epoch`. The one used longest ago comes first.
        self._epoch: str | None = None
        self._epochs: dict[str, dict[str, SeenSeqs]] = {}
        self._window_began = now
        self._in_window = 0
        self._rate = 0.0

    def seqs(self, epoch: str, symbol: str) -> SeenSeqs:
        """Return the sequence numbers of a symbol that were counted."""
        if epoch != self._epoch:
            self._epochs[epoch] = self._epochs.pop(epoch, {})
            self._epoch = epoch
            if len(self._epochs) > MAX_EPOCHS:
                del self._epochs[next(iter(self._epochs))]
        symbols = self._epochs[epoch]
        return symbols.get(symbol) or symbols.setdefault(symbol, SeenSeqs())

    def counted(self, epoch: str, symbol: str) -> SeenSeqs:
        """Return the same without a use of the epoch."""
        return self._epochs.get(epoch, {}).get(symbol) or SeenSeqs()

    def epochs(self, symbol: str) -> list[str]:
        """Return the epochs in which the symbol had a sequence number."""
        return [epoch for epoch, symbols in self._epochs.items() if symbol in symbols]

    def newest(self, symbol: str) -> Newest:
        """Return what is the newest of a symbol."""
        return self.symbols.get(symbol) or self.symbols.setdefault(symbol, Newest())

    def rename(self, symbol: str, new: str) -> None:
        """Go on with what is known of a symbol under its new name."""
        if was := self.symbols.pop(symbol, None):
            newest = self.newest(new)
            newest.trade, newest.book = max(newest.trade, was.trade), max(newest.book, was.book)
            newest.heard_at = max(newest.heard_at, was.heard_at)
        for symbols in self._epochs.values():
            if seqs := symbols.pop(symbol, None):
                symbols.setdefault(new, SeenSeqs()).merge(seqs)

    def forget(self, symbol: str) -> None:
        """Forget a symbol that was delisted."""
        self.symbols.pop(symbol, None)
        for symbols in self._epochs.values():
            symbols.pop(symbol, None)

    def count(self, answer: Answer, objects: int, now: int) -> None:
        """Count a batch."""
        self._roll(now)
        self._in_window += objects
        self.heard_at = now
        self.results["accepted"] += answer.accepted
        self.results["duplicate"] += answer.duplicate
        self.results["late"] += answer.late
        self.results["held"] += answer.held
        self.results["rejected"] += len(answer.rejected)

    def rate(self, now: int) -> float:
        """Return the objects a second: of this window, and of the last one for the time it lacks."""
        self._roll(now)
        lacking = 1 - (now - self._window_began) / RATE_WINDOW_US
        return self._in_window * 1e6 / RATE_WINDOW_US + self._rate * lacking

    def _roll(self, now: int) -> None:
        passed = now - self._window_began
        if passed >= RATE_WINDOW_US or passed < 0:
            self._rate = self._in_window * 1e6 / passed if passed > 0 else 0.0
            self._window_began, self._in_window = now, 0


class Sources:
    """All sources. `priority`: names, the first source first. Others come after all of these.

    `silent_after_us`: microseconds after which the next source counts. `own`: this server's feeds.
    Their names and those of `priority` are always admitted.
    """

    def __init__(
        self, priority: Sequence[str], silent_after_us: int, own: Iterable[str] = ()
    ) -> None:
        self.priority = priority
        self.always = frozenset((*priority, *own))
        self.silent_after_us = silent_after_us
        self.all: dict[str, Source] = {}
        self._numbers = 0

    def get(self, name: str, now: int) -> Source | None:
        """Return a source, a new one if it has not been heard; None if there are too many."""
        source = self.all.get(name)
        if source is None:
            if name not in self.always and not self._has_room(now):
                return None
            rank = self.priority.index(name) if name in self.priority else len(self.priority)
            # A number comes again after 65,536 sources, and no trade of the first is kept then.
            self._numbers = (self._numbers + 1) % 2**16
            source = self.all[name] = Source(name, self._numbers, rank, now)
        return source

    def progress(self, name: str, epoch: str, symbol: str) -> Progress:
        """Return how far a symbol of a source that was heard has come."""
        source = self.all[name]
        seqs, newest = source.counted(epoch, symbol), source.newest(symbol)
        return Progress(
            name,
            epoch,
            symbol,
            seqs.floor,
            f"{seqs.above:x}",
            newest.trade,
            newest.book,
            newest.heard_at,
            seqs.unknown,
        )

    def all_progress(self, symbol: str) -> list[Progress]:
        """Return how far a symbol of each source has come."""
        return [
            self.progress(source.name, epoch, symbol)
            for source in self.all.values()
            if symbol in source.symbols
            for epoch in source.epochs(symbol) or [""]
        ]

    def restore(self, progress: Iterable[Progress], now: int) -> None:
        """Go on from what another instance has counted."""
        for each in progress:
            if source := self.get(each.source, now):
                seqs = source.seqs(each.epoch, each.symbol)
                seqs.floor, seqs.above = each.floor, int(each.above, 16)
                seqs.unknown = each.unknown
                newest = source.newest(each.symbol)
                newest.trade = max(newest.trade, each.trade)
                newest.book = max(newest.book, each.book)
                newest.heard_at = max(newest.heard_at, min(each.heard_at, now))

    def rename(self, symbol: str, new: str) -> None:
        """Go on with what all sources said of a symbol under its new name."""
        for source in self.all.values():
            source.rename(symbol, new)

    def forget(self, symbol: str) -> None:
        """Forget a symbol that was delisted."""
        for source in self.all.values():
            source.forget(symbol)

    def on_cancelled(self, symbol: str, row: Row, newest: tuple[int, int]) -> None:
        """Let `newest` be the newest of a symbol and source whose newest trade was cancelled."""
        for source in self.all.values():
            if source.number == row.source and source.newest(symbol).trade == row.order:
                source.newest(symbol).trade = newest

    def is_outranked(self, source: Source, symbol: str, now: int) -> bool:
        """Whether a source with a higher priority speaks of the symbol."""
        since = now - self.silent_after_us
        for name in self.priority[: source.rank]:
            higher = self.all.get(name)
            newest = higher.symbols.get(symbol) if higher else None
            if newest and newest.heard_at > since:
                return True
        return False

    def _has_room(self, now: int) -> bool:
        """Whether one more source fits. If too many are known, forget the one that was silent for
        longest, if that is long enough.
        """
        others = [each for each in self.all.values() if each.name not in self.always]
        if len(others) < MAX_SOURCES:
            return True
        # A source without a price that counted is forgotten first, and at once.
        quietest = min(others, key=_worth)
        if _worth(quietest) > (True, now - ID_MEMORY_US):
            return False
        del self.all[quietest.name]
        return True


def _worth(source: Source) -> tuple[bool, int]:
    """Order sources by their use: first those without an object that counted, or that was restored."""
    return bool(source.symbols), source.heard_at
