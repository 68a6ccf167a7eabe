"""A part of the store that can fail: its state, its circuit breaker, and a log line for each change."""

from collections.abc import Awaitable, Callable
from typing import Literal, TypeVar

import structlog
import trio

from server.store.catalogue import StatementRefused, StoreUnavailable

MOST_FAILURES = 3
"""Failures in a row that open the breaker."""

T = TypeVar("T")

log = structlog.get_logger()


class Component:
    """The catalogue, the cache, or writing to the catalogue.

    Writing has its own component: a full or read-only database still answers reads. `name` is for
    people, `reason` is the last failure.

    After MOST_FAILURES, the breaker opens and no call is made for `recovery` seconds. Then it is half
    open: one call may try, and its success closes it.
    """

    def __init__(
        self, role: Literal["catalogue", "cache", "write_back"], name: str, *, recovery: float = 5.0
    ) -> None:
        self.role = role
        self.name = name
        self.reason = ""
        self._recovery = recovery
        self._failures = 0
        self._retry_at: float | None = None

    @property
    def state(self) -> Literal["ok", "degraded", "down"]:
        """Return `degraded` after a failure, `down` while the breaker is not closed."""
        if self._retry_at is not None:
            return "down"
        return "degraded" if self._failures else "ok"

    @property
    def breaker(self) -> Literal["closed", "open", "half_open"]:
        """Return whether calls are let through (closed), refused (open), or tried once (half open)."""
        if self._retry_at is None:
            return "closed"
        return "open" if trio.current_time() < self._retry_at else "half_open"

    async def ask(self, call: Callable[[], Awaitable[T]]) -> T:
        """Return the result of `call` if the breaker lets it through. Errors: StoreUnavailable."""
        if not self.allows():
            raise StoreUnavailable(f"{self.name} is not asked: {self.reason}")
        try:
            result = await call()
        except StatementRefused:
            # It answers: others' statements are not to suffer for this one.
            self.succeeded()
            raise
        except StoreUnavailable as error:
            self.failed(str(error))
            raise
        self.succeeded()
        return result

    def allows(self) -> bool:
        """Return whether to make a call now. Its caller must report `succeeded` or `failed`."""
        if self._retry_at is None:
            return True
        if trio.current_time() < self._retry_at:
            return False
        # This call is the trial. The others are refused until it is answered.
        self._retry_at = trio.current_time() + self._recovery
        return True

    def succeeded(self) -> None:
        """Note that a call was answered."""
        if self._failures:
            log.info(f"{self.name} is back")
        self._failures, self._retry_at, self.reason = 0, None, ""

    def failed(self, reason: str) -> None:
        """Note that a call was not answered, and why."""
        if not self._failures:
            log.warning(f"{self.name} is unavailable", problem=reason)
        self._failures += 1
        self.reason = reason
        if self._failures >= MOST_FAILURES:
            self._retry_at = trio.current_time() + self._recovery
