"""What a client is told first: what it asked for in the request, then what else it has to know."""

from typing import TYPE_CHECKING

from server.gateway.commands import NO_SUCH_SYMBOL
from server.gateway.handshake import STORE_UNAVAILABLE, Admission
from server.gateway.pool import LATER_MS
from server.quotes.messages import Ack

if TYPE_CHECKING:
    from server.gateway.session import Session

CONNECT = "connect"
"""What stands for the request where refusals are counted by command."""


def begin(session: "Session", admission: Admission) -> None:
    """Subscribe the session to what its client selected, and send the snapshot. Never waits."""
    gateway, selection = session.gateway, admission.selection
    gateway.heartbeat.start(session)
    if admission.interval is not None:
        granted = gateway.hub.throttle(session.outbox, admission.interval)
        session.send(Ack("throttle", [], interval=granted))
    if selection.everything:
        session.subscribe_everything()
    else:
        session.subscribe(selection.topics)
    if selection.unknown:
        session.refuse(CONNECT, "unknown_symbol", NO_SUCH_SYMBOL, symbols=selection.unknown)
    if selection.unavailable:
        symbols = [*selection.unavailable]
        session.refuse(CONNECT, "store_unavailable", STORE_UNAVAILABLE, symbols=symbols)
    if gateway.hub.status.is_news:
        session.outbox.send_current(gateway.hub.status)
    if gateway.pool.draining:
        session.send_away(LATER_MS)
