"""The circuit breaker of a connection whose socket takes nothing: when to stop trying, and for good.

Theory of operation: a breaker exists while its connection's outbox is blocked; the many that are
not blocked have none, so being healthy costs nothing. What happens next is the table below.

    closed ──too many stalls in a row──▶ open ──recovery time──▶ half-open ──trials went out──▶ closed
                                          ▲                          │
                                          └────────── stall ─────────┴─ the last one ──▶ given up
"""

from enum import Enum
from typing import NamedTuple

MAX_REOPENINGS = 3
"""Half-open times that end in a stall until the connection is given up."""

TRIALS = 3
"""Writes of a half-open breaker that must get somewhere before it is closed, unless fewer do."""


class BreakerPolicy(NamedTuple):
    """`threshold`: stalls in a row that open a breaker; `recovery`: seconds it then stays open;
    `stall_timeout`: seconds without any progress that count as one stall.
    """

    threshold: int = 5
    recovery: float = 30.0
    stall_timeout: float = 2.0


class BreakerState(Enum):
    """The value is the metric's label."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    GIVEN_UP = "given_up"


class _Event(Enum):
    STALLED_TOO_OFTEN = "stalled too often"
    RECOVERY_OVER = "recovery time is over"
    WENT_OUT = "trials went out"
    STALLED = "stalled"
    STALLED_LAST = "stalled for the last time"


_TRANSITIONS = {
    (BreakerState.CLOSED, _Event.STALLED_TOO_OFTEN): BreakerState.OPEN,
    (BreakerState.OPEN, _Event.RECOVERY_OVER): BreakerState.HALF_OPEN,
    (BreakerState.HALF_OPEN, _Event.WENT_OUT): BreakerState.CLOSED,
    (BreakerState.HALF_OPEN, _Event.STALLED): BreakerState.OPEN,
    (BreakerState.HALF_OPEN, _Event.STALLED_LAST): BreakerState.GIVEN_UP,
}


class Breaker:
    """Told what became of each attempt to write; `state` says what to do next."""

    __slots__ = ("_policy", "_reopenings", "_stalls", "_trials", "state")

    def __init__(self, policy: BreakerPolicy) -> None:
        self.state = BreakerState.CLOSED
        self._policy = policy
        self._stalls = 0
        self._reopenings = 0
        self._trials = 0

    def stalled(self) -> None:
        """The socket took nothing for the policy's stall timeout."""
        if self.state is BreakerState.HALF_OPEN:
            self._reopenings += 1
            last = self._reopenings >= MAX_REOPENINGS
            self._on(_Event.STALLED_LAST if last else _Event.STALLED)
        elif self.state is BreakerState.CLOSED:
            self._stalls += 1
            if self._stalls >= self._policy.threshold:
                self._on(_Event.STALLED_TOO_OFTEN)

    def trickled(self) -> None:
        """The socket had no room, but the peer took some of what is in it: slow, not stalled."""
        self._stalls = 0

    def went_out(self, *, everything: bool) -> None:
        """A write got somewhere; `everything`: nothing is waiting any more."""
        self._stalls = 0
        if self.state is BreakerState.HALF_OPEN:
            self._trials += 1
            if everything or self._trials >= TRIALS:
                self._on(_Event.WENT_OUT)

    def recovered(self) -> None:
        """The recovery time is over: try again."""
        self._trials = 0
        self._on(_Event.RECOVERY_OVER)

    def _on(self, event: _Event) -> None:
        self.state = _TRANSITIONS[self.state, event]
