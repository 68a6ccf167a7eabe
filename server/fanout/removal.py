"""Takes the quotes of delisted and renamed symbols away from their subscribers."""

from collections.abc import Callable
from time import time_ns

from server.fanout.frame import Source, UpdateFrame, message_frame
from server.fanout.outbox import Outbox
from server.fanout.subscriber_set import Audience
from server.fanout.topic import Topic
from server.quotes.view import Removal, View


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

    def current_frame(self, view: View) -> UpdateFrame:
        removal = _removal(self._topic, self._successor, given=True)
        return UpdateFrame(message_frame(view.removal(removal), view), self)


def take_away(topic: Topic) -> None:
    """Take the quote away from all subscribers, and end the subscriptions to this one symbol.

    The message first gives the quote, as some subscribers may not have it yet.
    """
    topic.delisted = True
    topic.forget_frames()
    notice = RemovalNotice(topic)
    if not topic.waiting:
        removal, flusher = _removal(topic, given=topic.quote_due), topic.context.flusher
        for audience, source in ((topic.subscribers, notice), (topic.everyone, topic)):
            for group in audience.groups:
                frame = message_frame(group.view.removal(removal), group.view)
                flusher.queue(UpdateFrame(frame, source), group, removal.ts)
    for outbox in topic.subscribers:
        if outbox.owner is not None:
            outbox.owner.on_delisted(topic)
        if outbox.is_pending(notice):
            outbox.send_current(notice)
    for outbox in topic.everyone:
        if outbox.is_pending(topic):
            outbox.send_current(topic)
    topic.subscribers, topic.everyone = Audience(), Audience()
    topic.quote_due = False
    topic.deactivate()


def move_subscribers(
    old: Topic,
    new: Topic,
    everyone: Audience,
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

    If the outbox is blocked, both become pending, in this order. If the old
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
    given = old.quote_due or old.waiting or outbox.is_pending(old)
    # What is held for a throttled client is in this message.
    outbox.forget([old, old.freshness, new])
    for payload in outbox.view.replacement(_removal(old, new, given=given), new):
        outbox.send(message_frame(payload, outbox.view))


def _removal(topic: Topic, successor: Topic | None = None, *, given: bool) -> Removal:
    return Removal([topic], time_ns() // 1000, given, successor)
