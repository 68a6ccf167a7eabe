"""What the pool, the heartbeat and the search for dead connections know of a session."""

from typing import Protocol

from server.fanout.outbox import Outbox
from server.gateway.auth import Identity
from server.gateway.closing import Close
from server.gateway.deadlines import Timed
from server.gateway.lifecycle import State
from server.gateway.subscriptions import Subscriptions


class Connection(Timed, Protocol):
    """One connection after the upgrade.

    `state` is the pool's to change. `close_code` and `lost` tell how the connection ended.

    `beat_at`, `heard`, `unanswered` and `quiet_beats` are the heartbeat's: when the next beat is due
    in trio's time, whether more than a pong came since the last beat, the number of pings without an
    answer, and the number of beats in a row without traffic.
    """

    state: State
    identity: Identity
    outbox: Outbox
    subscriptions: Subscriptions
    close_code: int
    lost: bool
    beat_at: float
    heard: bool
    unanswered: int
    quiet_beats: int

    @property
    def closing(self) -> bool:
        """Whether a close frame was sent, or the connection is over."""

    @property
    def over(self) -> bool:
        """Whether the connection is over."""

    def ping(self) -> None:
        """Ask the client whether it is there; anything it sends answers."""

    def close(self, reason: Close) -> None:
        """Send a close frame, and give the client a moment to answer it."""

    def drop(self, reason: Close) -> None:
        """End at once."""

    def send_away(self, spread_ms: int) -> None:
        """Tell the client to come back within `spread_ms` milliseconds, and close."""
