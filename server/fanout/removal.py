"""Takes the quotes of delisted and renamed symbols away from their subscribers."""

from collections.abc import Callable
from time import time_ns

from msgspec import UNSET

from server.fanout.frame import Source, UpdateFrame, text_frame
from server.fanout.outbox import Outbox
from server.fanout.subscriber_set import SubscriberSet
from server.fanout.topic import Topic, full_quotes
from server.quotes.messages import QuotesPatch, encode
from server.quotes.patch import Add, Remove


class RemovalNotice(Source):
    """Pending in place of a delisted topic on the connections that were subscribed to it by name.

    Its frame gives the quote and takes it away, even if the topic is listed again by then: these
    clients are not subscribed any more. If a client subscribes again, the topic is pending instead.
    `successor` is the topic of a renamed symbol.
    """

    __slots__ = ("_successor", "_topic")

    def __init__(self, topic: Topic, successor: Topic | None = None) -> None:
        self._topic = topic
        self._successor = successor

    @property
    def key(self) -> str:
        """The topic's key, as only one of both is pending."""
        return self._topic.key

    def current_frame(self) -> UpdateFrame:
        """Return both operations as one frame."""
        message = _removal(self._topic, self._successor, given=True)
        return UpdateFrame(text_frame(encode(message)), self)


def take_away(topic: Topic) -> None:
    """Take the quote away from all subscribers, and end the subscriptions to this one symbol.

    The message first gives the quote, as some subscribers may not have it yet.
    """
    topic.delisted = True
    topic.forget_frame()
    notice = RemovalNotice(topic)
    if not topic.waiting:
        now = time_ns() // 1000
        frame = UpdateFrame(text_frame(encode(_removal(topic, None, given=topic.quote_due))), topic)
        flusher = topic.context.flusher
        flusher.queue(UpdateFrame(frame, notice), topic.subscribers, now)
        flusher.queue(frame, topic.everyone, now)
    for outbox in topic.subscribers:
        if outbox.owner is not None:
            outbox.owner.on_delisted(topic)
        if outbox.is_pending(notice):
            outbox.send_current(notice)
    for outbox in topic.everyone:
        if outbox.is_pending(topic):
            outbox.send_current(topic)
    topic.subscribers, topic.everyone = SubscriberSet(), SubscriberSet()
    topic.quote_due = False
    topic.deactivate()


def move_subscribers(
    old: Topic,
    new: Topic,
    everyone: SubscriberSet,
    subscribe: Callable[[Outbox, Topic], None],
    taken: Topic | None = None,
) -> None:
    """Give the subscribers of `old` the quote of `new` in its place.

    Those that are subscribed to both keep the new one and lose the old one, as do those to `*` that
    `old.everyone` still has. `taken` is a topic that has the old symbol already. Its subscribers have
    its quote in place of the old one.
    """
    replaced = set() if taken is None else {*taken.subscribers, *everyone}
    for outbox in [each for each in old.subscribers if each not in new.subscribers]:
        old.subscribers.discard(outbox)
        _replace_quote(outbox, old, new, replaced=outbox in replaced)
        subscribe(outbox, new)
        if outbox.owner is not None:
            outbox.owner.on_renamed(old, new)
    for outbox in [each for each in everyone if each not in old.everyone]:
        _replace_quote(outbox, old, new, replaced=outbox in replaced)


def _replace_quote(outbox: Outbox, old: Topic, new: Topic, *, replaced: bool) -> None:
    """Take the quote of `old` away from one subscriber, then give it the full quote of `new`.

    One message does both. If the outbox is blocked, both become pending, in this order. If the old
    quote is `replaced` already, only give the new one.
    """
    if new.waiting:
        return
    if replaced:
        outbox.send_current(new)
        return
    outbox.flush()
    if outbox.blocked:
        outbox.send_current(RemovalNotice(old, new))
        outbox.send_current(new)
        return
    removal = _removal(old, new, given=old.quote_due or old.waiting or outbox.is_pending(old))
    # What is held for a throttled client is in this message.
    outbox.forget([old, old.freshness, new])
    quote = full_quotes([new])
    message = QuotesPatch(
        quote.ts,
        removal.versions | quote.versions,
        [*removal.operations, *quote.operations],
        quote.epoch,
        removal.renamed,
    )
    outbox.send(text_frame(encode(message)))


def _removal(topic: Topic, successor: Topic | None, *, given: bool) -> QuotesPatch:
    """Return the message that takes a quote away. If `given`, it gives the quote first."""
    versions = {topic.symbol: topic.version}
    renamed = {topic.symbol: successor.symbol} if successor else UNSET
    removal = Remove(topic.pointer)
    if not given:
        return QuotesPatch(time_ns() // 1000, versions, [removal], renamed=renamed)
    add = Add(topic.pointer, topic.quote)
    return QuotesPatch(topic.ts, versions, [add, removal], topic.epoch, renamed)
