"""A client that subscribes at a hub as a session does, without a session."""

from typing import Any

from server.fanout.hub import Hub
from server.fanout.outbox import Outbox
from server.fanout.topic import Topic
from server.gateway.subscriptions import Delivery, SendQuotes, Subscriptions
from server.quotes.messages import Ack


class Subscriber:
    """The owner of `outbox`. It follows its topics as they are delisted and renamed."""

    hub: Hub
    outbox: Outbox
    subscriptions: Subscriptions

    def on_delisted(self, topic: Any) -> None:
        self.subscriptions.topics.pop(topic, None)

    def on_renamed(self, old: Any, new: Any) -> None:
        self.subscriptions.topics.pop(old, None)
        self.subscriptions.topics[new] = None

    def on_breaker(self, state: object) -> None:
        """Do nothing: it reads when it likes."""

    def deliver(self, reply: Delivery) -> None:
        reply.deliver(self.hub, self.outbox)

    def start(self, names: list[str]) -> None:
        if not self.subscriptions.everything:
            new = self.subscriptions.new_among(self.hub.topics[name] for name in names)
            self.deliver(self.subscriptions.start(new))
            self.deliver(SendQuotes(new))

    def start_everything(self) -> None:
        new = self.subscriptions.new_among(self.hub.topics.values())
        if not self.subscriptions.everything:
            self.deliver(self.subscriptions.start_everything())
            self.deliver(SendQuotes(new))

    def stop(self, names: list[str]) -> None:
        topics = [self.hub.topics[name] for name in names]
        if self.subscriptions.everything:
            topics = list(self.hub.topics.values())
        else:
            topics = [topic for topic in topics if topic in self.subscriptions.topics]
        if topics:
            self.deliver(self.subscriptions.stop(topics, Ack("unsubscribe", [])))

    def resync(self) -> None:
        if topics := list(self.subscriptions.topics):
            self.deliver(SendQuotes(topics))

    @property
    def subscribed(self) -> list[Topic]:
        """The topics whose quotes the client must have."""
        everything = self.subscriptions.everything
        return list(self.hub.topics.values() if everything else self.subscriptions.topics)
