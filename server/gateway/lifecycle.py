"""The life of a connection as one table.

Theory of operation: a connection is in exactly one state. The table names the next state for each
event; other events cannot happen. The pool counts the connections of each state. Only `Pool.move`
changes a state, so the counts are exact.

    connecting ──opened──▶ active ◀──traffic / quiet──▶ idle
        │                    │                           │
        │                    └──────── closing ──────────┴──▶ draining ──ended──▶ closed
        └── refused, or gone ── ended (from any state) ─────────────────────────▶ closed
"""

from enum import Enum


class State(Enum):
    """The value is the metric's label. Connecting: before the upgrade. Idle: for a heartbeat, no data
    was sent and nothing but pongs received. Draining: a close frame was sent.
    """

    CONNECTING = "connecting"
    ACTIVE = "active"
    IDLE = "idle"
    DRAINING = "draining"
    CLOSED = "closed"


class Event(Enum):
    """Changes a state."""

    OPENED = "opened"
    QUIET = "quiet"
    TRAFFIC = "traffic"
    CLOSING = "closing"
    ENDED = "ended"


TRANSITIONS = {
    (State.CONNECTING, Event.OPENED): State.ACTIVE,
    (State.CONNECTING, Event.ENDED): State.CLOSED,
    (State.ACTIVE, Event.QUIET): State.IDLE,
    (State.ACTIVE, Event.CLOSING): State.DRAINING,
    (State.ACTIVE, Event.ENDED): State.CLOSED,
    (State.IDLE, Event.TRAFFIC): State.ACTIVE,
    (State.IDLE, Event.CLOSING): State.DRAINING,
    (State.IDLE, Event.ENDED): State.CLOSED,
    (State.DRAINING, Event.ENDED): State.CLOSED,
}
