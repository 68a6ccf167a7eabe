"""The circuit breaker of a connection whose socket takes nothing: when to pause, when to give up.

Theory of operation: a breaker exists while its connection's outbox is blocked. Other connections
have none, so a healthy one costs nothing. The table below names each change of state.

    closed ──too many stalls in a row──▶ open ──recovery time──▶ half-open ──trials went out──▶ closed
                                          ▲                          │
                                          └────────── stall ─────────┴─ the last one ──▶ given up
"""

from enum import Enum
from typing import NamedTuple

MAX_REOPENINGS = 3
"""The number of half-open times that end in a stall until the connection is given up."""

TRIALS = 3
"""The number of writes that must make progress before a half-open breaker closes. If a write leaves
nothing waiting, the breaker closes at once.
"""


class BreakerPolicy(NamedTuple):
    """`threshold`: stalls in a row that open a breaker. `recovery`: seconds it then stays open.
    `stall_timeout`: seconds without any progress that count as one stall.
    """

    threshold: int = 5
    recovery: float = 30.0
    stall_timeout: float = 2.0


class BreakerState(Enum):
    """The state; its value is the metric's label."""

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
    """Learns the result of each attempt to write. `state` says what to do next."""

    __slots__ = ("_policy", "_reopenings", "_stalls", "_trials", "state")

    def __init__(self, policy: BreakerPolicy) -> None:
        self.state = BreakerState.CLOSED
        self._policy = policy
        self._stalls = 0
        self._reopenings = 0
        self._trials = 0

    def stalled(self) -> None:
        """Note that the socket took nothing for the policy's stall timeout."""
        if self.state is BreakerState.HALF_OPEN:
            self._reopenings += 1
            last = self._reopenings >= MAX_REOPENINGS
            self._on(_Event.STALLED_LAST if last else _Event.STALLED)
        elif self.state is BreakerState.CLOSED:
            self._stalls += 1
            if self._stalls >= self._policy.threshold:
                self._on(_Event.STALLED_TOO_OFTEN)

    def trickled(self) -> None:
        """Note that the socket had no room, but the peer took some bytes: it is slow, not stalled."""
        self._stalls = 0

    def went_out(self, *, everything: bool) -> None:
        """Note that a write made progress; `everything`: nothing waits any more."""
        self._stalls = 0
        if self.state is BreakerState.HALF_OPEN:
            self._trials += 1
            if everything or self._trials >= TRIALS:
                self._on(_Event.WENT_OUT)

    def recovered(self) -> None:
        """Try again, as the recovery time is over."""
        self._trials = 0
        self._on(_Event.RECOVERY_OVER)

    def _on(self, event: _Event) -> None:
        self.state = _TRANSITIONS[self.state, event]
