"""Counts stored values and messages that are not records, and names each of them once in the log."""

from collections import Counter
from collections.abc import Callable
from time import monotonic
from typing import Literal, TypeVar

import structlog

from server.quotes.record import BadRecord

NAMED_KEYS = 1000
"""Keys that are remembered as named, some 200 KB. Further ones are counted only."""

NAMED_ANEW_AFTER = 3600.0
"""Seconds for which nothing more is named once so many keys were; then naming begins anew."""

MAX_KEY_LENGTH = 80
"""Characters of a key in the log: a symbol, or the name of a key in Redis."""

Source = Literal[
    "postgres", "sqlite", "cache", "hash", "bus", "watched", "invalidations", "redis_keys",
    "write_back", "versions",
]  # fmt: skip
"""Where a value came from: the metric's label."""

T = TypeVar("T")

log = structlog.get_logger()


class InvalidRecords:
    """`counts` by source. `clock` gives seconds. May be used from one thread at a time only."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self.counts: Counter[Source] = Counter()
        self._named: set[tuple[Source, str]] = set()
        self._clock = clock
        self._full_at: float | None = None

    def read(self, source: Source, key: object, reading: Callable[[], T]) -> T | None:
        """What `reading` returns; None, and `key` is reported, if it raises BadRecord."""
        try:
            return reading()
        except BadRecord as bad:
            self.report(source, key, str(bad))
            return None

    def report(self, source: Source, key: object, problem: str) -> None:
        """Count one value, and name `key` unless it was named before."""
        self.counts[source] += 1
        text = _printable(key)
        if (source, text) not in self._named and self._has_room():
            self._named.add((source, text))
            log.warning("invalid record left out", source=source, key=text, problem=problem)

    def _has_room(self) -> bool:
        if len(self._named) < NAMED_KEYS:
            return True
        now = self._clock()
        if self._full_at is None:
            self._full_at = now
            log.warning(
                "more invalid records are only counted: see market_data_invalid_records_total",
                named=NAMED_KEYS, for_seconds=NAMED_ANEW_AFTER,
            )  # fmt: skip
        elif now - self._full_at >= NAMED_ANEW_AFTER:
            self._named.clear()
            self._full_at = None
            return True
        return False


def _printable(key: object) -> str:
    if isinstance(key, bytes):
        text = key.decode(errors="backslashreplace")
    else:  # the text of what is neither may be of any length and depth
        text = key if isinstance(key, str) else type(key).__name__
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= MAX_KEY_LENGTH else text[:MAX_KEY_LENGTH] + "…"
