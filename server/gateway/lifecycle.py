"""The life of a connection as one table.

Theory of operation: a connection is in exactly one state. What happens to it is an event; the table
says where that leads, and what it does not name cannot happen. The pool counts by state, and only
`Pool.move` changes a state, so the counts are the connections.

    connecting ──opened──▶ active ◀──traffic / quiet──▶ idle
        │                    │                           │
        │                    └──────── closing ──────────┴──▶ draining ──ended──▶ closed
        └── refused, or gone ── ended (from any state) ─────────────────────────▶ closed
"""

from enum import Enum


class State(Enum):
    """The value is the metric's label. Connecting: before the upgrade. Idle: no data sent, nothing
    but pongs received for a heartbeat. Draining: a close frame was sent.
    """

    CONNECTING = "connecting"
    ACTIVE = "active"
    IDLE = "idle"
    DRAINING = "draining"
    CLOSED = "closed"


class Event(Enum):
    """What changes a state."""

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
