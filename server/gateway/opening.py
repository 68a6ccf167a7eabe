"""The first replies to a new client, which answer its request."""

from server.fanout.recovery import recover
from server.fanout.throttle import granted
from server.gateway.commands import ClientContext
from server.gateway.handshake import Admission
from server.gateway.selection import EVERYTHING, symbols_of
from server.gateway.subscriptions import Replies, SendRecovery, SetInterval, Subscriptions
from server.quotes.messages import Ack

CONNECT = "connect"
"""The name of the request in the counts of refusals by command."""


def welcome(admission: Admission, subscriptions: Subscriptions, context: ClientContext) -> Replies:
    """Subscribe a new connection to what its client selected, and send the quotes that it lacks."""
    selection = admission.selection
    if selection.everything:
        topics, names = list(context.selector.topics.values()), [EVERYTHING]
        yield subscriptions.start_everything()
    else:
        topics, names = selection.topics, symbols_of(selection.topics)
        yield subscriptions.start(topics)
    recovery = recover(topics, admission.position, admission.view)
    if admission.position is not None:
        yield Ack("resume", names, recovered=recovery.recovered)
    if admission.interval is not None:
        interval = granted(admission.interval)
        yield SetInterval(interval)
        yield Ack("throttle", [], interval=interval)
    yield SendRecovery(recovery)
    yield from context.refuse_missing(CONNECT, selection)
