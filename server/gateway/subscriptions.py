"""The subscriptions of one connection, and the replies to its client.

A reply is a value: a message, a finished frame, or an action. Commands and the opening return replies
in the order in which the client sees them, and do no I/O. Then the session carries the replies out
(session.py).
"""

from collections.abc import Iterable
from time import time_ns
from typing import NamedTuple, Protocol

from server.fanout.frame import message_frame
from server.fanout.hub import Hub
from server.fanout.outbox import Outbox
from server.fanout.recovery import Recovery
from server.fanout.topic import Topic
from server.gateway.auth import Identity
from server.gateway.closing import Close
from server.quotes.messages import Ack, Error, Pong, Subscribe
from server.quotes.view import Removal


class Delivery(Protocol):
    """A reply that the hub carries out."""

    def deliver(self, hub: Hub, outbox: Outbox) -> None:
        """Carry the reply out for the connection of `outbox`."""


class StartUpdates(NamedTuple):
    """Send the updates of `topics` from their present version on."""

    topics: list[Topic]

    def deliver(self, hub: Hub, outbox: Outbox) -> None:
        for topic in self.topics:
            hub.subscribe(outbox, topic)


class StartAllUpdates(NamedTuple):
    """Send the updates of all topics, in place of the subscriptions to `single` ones."""

    single: list[Topic]

    def deliver(self, hub: Hub, outbox: Outbox) -> None:
        hub.subscribe_everything(outbox, self.single)


class StopUpdates(NamedTuple):
    """Send no more updates of `topics`, then `ack`, and take the quotes away.

    `everything`: these are all topics, also those still to come.
    """

    topics: list[Topic]
    everything: bool
    ack: Ack

    def deliver(self, hub: Hub, outbox: Outbox) -> None:
        outbox.flush()
        priced = [each for each in self.topics if not each.waiting]
        # The client may have nothing yet of these, and can only remove quotes that it has.
        unsent = [each for each in priced if outbox.is_pending(each) or each.quote_due]
        if self.everything:
            hub.unsubscribe_everything(outbox)
        else:
            for topic in self.topics:
                hub.unsubscribe(outbox, topic)
        view = outbox.view
        outbox.send(message_frame(view.encode(self.ack), view))
        if unsent:
            outbox.send(message_frame(view.full(unsent), view))
        if priced:
            removal = Removal(priced, time_ns() // 1000)
            outbox.send(message_frame(view.removal(removal), view))


class SendQuotes(NamedTuple):
    """Send the full quotes of `topics`."""

    topics: list[Topic]

    def deliver(self, hub: Hub, outbox: Outbox) -> None:
        hub.send_quotes(outbox, self.topics)


class SendRecovery(NamedTuple):
    """Send what brings the client up to date."""

    recovery: Recovery

    def deliver(self, hub: Hub, outbox: Outbox) -> None:
        hub.stats.recovered.update(self.recovery.recovered.values())
        hub.send_recovery(outbox, self.recovery)


class SetInterval(NamedTuple):
    """Send each symbol at most once in `seconds`; 0 for no limit."""

    seconds: float

    def deliver(self, hub: Hub, outbox: Outbox) -> None:
        hub.throttle(outbox, self.seconds)


class Renew(NamedTuple):
    """Go on until `identity` expires."""

    identity: Identity


class LookUp(NamedTuple):
    """Ask the store for the symbols of `command`, then answer it, before any other command."""

    command: Subscribe


class Publish(NamedTuple):
    """Publish the objects of one message."""

    body: bytes


class ClientClosed(NamedTuple):
    """The client sent a close frame with `code`."""

    code: int


Reply = bytes | Ack | Error | Pong | Delivery | Renew | Close | ClientClosed

Replies = Iterable[Reply]

Answer = Iterable[Reply | LookUp | Publish]
"""The replies to one frame, the last of which may be a `LookUp` or a `Publish`."""


class Subscriptions:
    """One connection's subscriptions: either `everything`, or the single `topics`."""

    __slots__ = ("everything", "topics")

    def __init__(self) -> None:
        # A dict takes a third of a set's memory.
        self.topics: dict[Topic, None] = {}
        self.everything = False

    def new_among(self, topics: Iterable[Topic]) -> list[Topic]:
        """Return those of `topics` that are not subscribed to."""
        return [] if self.everything else [topic for topic in topics if topic not in self.topics]

    def start(self, topics: list[Topic]) -> StartUpdates:
        """Subscribe to `topics`."""
        self.topics |= dict.fromkeys(topics)
        return StartUpdates(topics)

    def start_everything(self) -> StartAllUpdates:
        """Subscribe to everything, in place of single topics."""
        single = list(self.topics)
        self.topics.clear()
        self.everything = True
        return StartAllUpdates(single)

    def stop(self, topics: list[Topic], ack: Ack) -> StopUpdates:
        """Unsubscribe from `topics`; if the client is subscribed to everything, these are all."""
        everything, self.everything = self.everything, False
        for topic in topics:
            self.topics.pop(topic, None)
        return StopUpdates(topics, everything, ack)

    def clear(self) -> None:
        """Forget all subscriptions."""
        self.topics.clear()
        self.everything = False
