"""What a client is told first: what it asked for in the request, then what else it has to know."""

from typing import TYPE_CHECKING

from server.fanout.recovery import recover
from server.gateway.commands import NO_SUCH_SYMBOL
from server.gateway.handshake import EVERYTHING, STORE_UNAVAILABLE, Admission
from server.gateway.pool import LATER_MS
from server.quotes.messages import Ack

if TYPE_CHECKING:
    from server.gateway.session import Session

CONNECT = "connect"
"""What stands for the request where refusals are counted by command."""


def begin(session: "Session", admission: Admission) -> None:
    """Subscribe the session to what its client selected, and send what it has not got. Never waits."""
    gateway, selection = session.gateway, admission.selection
    gateway.heartbeat.start(session)
    if selection.everything:
        topics, names = session.subscribe_everything(), [EVERYTHING]
    else:
        topics, names = selection.topics, [topic.symbol for topic in selection.topics]
        session.subscribe(topics)
    recovery = recover(topics, admission.position)
    if admission.position is not None:
        gateway.hub.stats.recovered.update(recovery.recovered.values())
        session.send(Ack("resume", names, recovered=recovery.recovered))
    if admission.interval is not None:
        granted = gateway.hub.throttle(session.outbox, admission.interval)
        session.send(Ack("throttle", [], interval=granted))
    gateway.hub.send_recovery(session.outbox, recovery)
    if selection.unknown:
        session.refuse(CONNECT, "unknown_symbol", NO_SUCH_SYMBOL, symbols=selection.unknown)
    if selection.unavailable:
        symbols = [*selection.unavailable]
        session.refuse(CONNECT, "store_unavailable", STORE_UNAVAILABLE, symbols=symbols)
    if gateway.hub.status.is_news:
        session.outbox.send_current(gateway.hub.status)
    if gateway.pool.draining:
        session.send_away(LATER_MS)
