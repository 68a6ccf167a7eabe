"""The states of an outbox as one table.

Theory of operation: an outbox is in exactly one state. A row of the table names the state that each
event leads to; None stands for an event that cannot happen. Only `Outbox._on` changes a state.
"""

from enum import Enum


class State(Enum):
    """Open: frames are queued until the round's flush. Throttled: answers go out at once, updates
    wait for the next release. Blocked: everything waits for the socket. Closing: the close frame
    waits for the socket, and nothing more is taken. Closed: nothing is taken, and nothing waits.
    """

    OPEN = "open"
    THROTTLED = "throttled"
    BLOCKED = "blocked"
    CLOSING = "closing"
    CLOSED = "closed"


class Event(Enum):
    """The cause of a change."""

    FILLED = "the socket took less than it was given"
    FREED = "nothing waits, and updates may go out as they come"
    HELD = "nothing waits, and updates have to wait for the next release"
    CLOSING = "the close frame was given"
    ENDED = "the connection is over"


_ROWS = {
    # FILLED, FREED, HELD, CLOSING, ENDED
    State.OPEN: (State.BLOCKED, State.OPEN, State.THROTTLED, State.CLOSED, State.CLOSED),
    State.THROTTLED: (State.BLOCKED, State.OPEN, State.THROTTLED, State.CLOSED, State.CLOSED),
    State.BLOCKED: (None, State.OPEN, State.THROTTLED, State.CLOSING, State.CLOSED),
    State.CLOSING: (None, State.CLOSED, State.CLOSED, None, State.CLOSED),
    State.CLOSED: (None, None, None, None, State.CLOSED),
}
TRANSITIONS = {
    (state, event): after
    for state, row in _ROWS.items()
    for event, after in zip(Event, row, strict=True)
    if after is not None
}
"""The state after each event, by the state before."""
