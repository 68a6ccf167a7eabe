"""The interface of a session to the other parts of the gateway."""

from typing import Protocol

from server.fanout.outbox import Outbox
from server.gateway.auth import Identity
from server.gateway.closing import Close
from server.gateway.deadlines import Timed
from server.gateway.lifecycle import State
from server.gateway.subscriptions import Subscriptions


class Connection(Timed, Protocol):
    """One connection after the upgrade. Only the pool changes its `state`.

    `close_code` and `lost` tell how it ended. The heartbeat owns four fields. `beat_at` is when the
    next beat is due, in trio's time. `heard`: more than a pong came since the last beat. `unanswered`
    is the number of pings without an answer, `quiet_beats` the number of beats in a row without
    traffic.

    `opened_us` is the time of its upgrade in microseconds, and names it: no two have the same.
    `address` is the client's if a trusted proxy told it, else empty: the socket knows the peer's.
    """

    state: State
    identity: Identity
    outbox: Outbox
    subscriptions: Subscriptions
    close_code: int
    lost: bool
    opened_us: int
    address: str
    beat_at: float
    heard: bool
    unanswered: int
    quiet_beats: int

    def on_readable(self) -> bool:
        """Read, and return whether `run` has to be called: not for a pong."""

    async def run(self) -> bool:
        """Take one read from the client. Return whether the connection now waits for more."""

    def end(self) -> None:
        """Give back everything but the socket."""

    @property
    def closing(self) -> bool:
        """Whether a close frame was sent, or the connection is over."""

    @property
    def over(self) -> bool: ...

    def ping(self) -> None:
        """Send a ping; any byte that the client then sends counts as an answer."""

    def close(self, reason: Close) -> None:
        """Send a close frame, and give the client a moment to answer it."""

    def drop(self, reason: Close) -> None:
        """End at once."""

    def send_away(self, spread_ms: int) -> None:
        """Tell the client to come back within `spread_ms` milliseconds, and close."""
