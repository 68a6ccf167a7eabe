"""Counts stored values and messages that are not valid records, and logs each of them once."""

from collections import Counter
from collections.abc import Callable
from time import monotonic
from typing import Literal, TypeVar

import structlog

from server.quotes.record import BadRecord

NAMED_KEYS = 1000
"""Keys that are remembered as logged, some 200 KB. Further ones are only counted."""

NAMED_ANEW_AFTER = 3600.0
"""Seconds without further log lines after NAMED_KEYS keys. Then logging begins anew."""

MAX_KEY_LENGTH = 80
"""Characters of a key in the log: a symbol, or the name of a key in Redis."""

Source = Literal[
    "postgres",
    "sqlite",
    "cache",
    "hash",
    "bus",
    "watched",
    "invalidations",
    "redis_keys",
    "write_back",
    "versions",
    "venue",
]
"""Where a value came from: the label of the metric."""

T = TypeVar("T")

log = structlog.get_logger()


class InvalidRecords:
    """`counts` by source. `clock` gives seconds. Only one thread at a time may use it."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self.counts: Counter[Source] = Counter()
        self._named: set[tuple[Source, str]] = set()
        self._clock = clock
        self._full_at: float | None = None

    def read(self, source: Source, key: object, reading: Callable[[], T]) -> T | None:
        """Return the result of `reading`. If it raises BadRecord, report `key` and return None."""
        try:
            return reading()
        except BadRecord as bad:
            self.report(source, key, str(bad))
            return None

    def report(self, source: Source, key: object, problem: str) -> None:
        """Count one value. Log `key` if it was not logged before."""
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
                named=NAMED_KEYS,
                for_seconds=NAMED_ANEW_AFTER,
            )
        elif now - self._full_at >= NAMED_ANEW_AFTER:
            self._named.clear()
            self._full_at = None
            return True
        return False


def _printable(key: object) -> str:
    if isinstance(key, bytes):
        text = key.decode(errors="backslashreplace")
    # Of other objects only the type: their text may be of any length and depth.
    else:
        text = key if isinstance(key, str) else type(key).__name__
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= MAX_KEY_LENGTH else text[:MAX_KEY_LENGTH] + "…"
