"""Logs at most one line a second for each kind of event that a hostile client could cause."""

import structlog
import trio

SAMPLE_INTERVAL = 1.0
"""Seconds between two lines with the same key."""

log = structlog.get_logger()


class Sampler:
    """Logs `event` at most once in SAMPLE_INTERVAL per key, with the number of lines left out since.

    Keys come from a fixed set, not from clients.
    """

    def __init__(self, event: str) -> None:
        self._event = event
        self._next: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def log(self, key: str, message: str, **details: str) -> None:
        """Log `key` as the reason, if it was not logged within SAMPLE_INTERVAL."""
        now = trio.current_time()
        if now < self._next.get(key, now):
            self._left_out[key] = self._left_out.get(key, 0) + 1
            return
        self._next[key] = now + SAMPLE_INTERVAL
        left_out = self._left_out.pop(key, 0)
        log.info(self._event, reason=key, message=message, **details, left_out=left_out)
