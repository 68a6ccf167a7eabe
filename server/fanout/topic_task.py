"""The tasks of active topics. Each publishes the updates in its topic's inbox."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import chain, islice
from time import time_ns

import trio

from server.fanout.flusher import Flusher
from server.fanout.inbox import Inbox
from server.fanout.topic import Topic
from server.quotes.update import Update

ROUND_TRADES = 16
"""Trades that a topic publishes between two rounds. A fast client's socket takes as many at once."""

TOPIC_GRACE = 30.0
"""Seconds an unwatched topic stays active: a page reload should not restart its task."""

RETIRE_INTERVAL = 5.0
"""Seconds between two looks for topics whose grace is over."""


class TopicTasks:
    """Owned by the hub, which sets `nursery` when it starts. `topics` are the hub's."""

    def __init__(self, topics: Mapping[str, Topic], flusher: Flusher) -> None:
        self.nursery: trio.Nursery
        self._topics = topics
        self._flusher = flusher
        self._publishing: set[trio.Event] = set()

    def start(self, topic: Topic) -> None:
        """Start a task for `topic` unless it has one."""
        if not topic.active:
            self.nursery.start_soon(run_topic, topic, topic.activate())

    def succeed(self, old: Topic, new: Topic) -> None:
        """Let `new` publish the updates that wait in `old`, and then those to come."""
        active = old.active or new.active
        if new.inbox is not None:
            new.inbox.close()
        new.succeed(old)
        if active:
            self.nursery.start_soon(run_topic, new, new.activate(old.newest_inbox))

    def open_inbox(self, topic: Topic) -> Inbox | None:
        """Return the inbox of a topic that is active or watched, else None.

        If only subscribers to `*` watch a topic, it gets its task here, with its first trade. Starting
        100,000 tasks at once took five seconds.
        """
        if topic.watched:
            self.start(topic)
        return topic.inbox

    def cut(self) -> list[trio.Event]:
        """Begin a new inbox for each topic that is not idle. Return the events that are set once the
        topics have published all that they have now, also full quotes that are due.
        """
        events = list(self._publishing)
        for topic in self._topics.values():
            if topic.inbox is not None and not topic.inbox.idle:
                events.append(topic.inbox.finished)
                topic.inbox.close()
                self.nursery.start_soon(run_topic, topic, topic.activate())
        return events

    async def finish(self) -> None:
        """Wait until every active topic has published all updates that it has now."""
        for event in self.cut():
            await event.wait()

    async def run_retirement(self) -> None:
        """End the tasks of topics whose grace is over, until cancelled."""
        while True:
            await trio.sleep(RETIRE_INTERVAL)
            overdue = trio.current_time() - TOPIC_GRACE
            for topic in self._topics.values():
                idle = not topic.watched and topic.idle_since <= overdue
                if idle and topic.inbox is not None and not topic.inbox.waiting:
                    topic.deactivate()

    def publish_due(self, topics: Iterable[Topic]) -> None:
        """Publish the full quotes that are due among `topics`, without waiting."""
        if due := [topic for topic in topics if topic.quote_due]:
            done = trio.Event()
            self._publishing.add(done)
            self.nursery.start_soon(self._publish_quotes, due, done)

    async def _publish_quotes(self, due: list[Topic], done: trio.Event) -> None:
        """Publish a round at a time: many symbols for ten thousand clients make millions of frames."""
        begun = time_ns() // 1000
        for start in range(0, len(due), ROUND_TRADES):
            for topic in due[start : start + ROUND_TRADES]:
                # A trade that was faster has published the full quote already.
                if topic.quote_due:
                    topic.publish_quote(begun)
            await trio.lowlevel.checkpoint()
            await self._flusher.wait_round()
        self._publishing.discard(done)
        done.set()


async def run_topic(topic: Topic, inbox: Inbox) -> None:
    """Publish the updates in `inbox`, round by round, until it is closed and empty."""
    flusher = topic.context.flusher
    for each in inbox.previous:
        await each.finished.wait()
    inbox.previous = ()
    with suppress(trio.EndOfChannel):
        while True:
            update = await inbox.take()
            # Updates that waited when their symbol was renamed count for the new one.
            topic = topic.present
            if flusher.conflation:
                publish_conflated(topic, update, inbox)
                await trio.sleep(flusher.conflation)
            else:
                _publish_round(topic, update, inbox)
            await flusher.wait_round()
    inbox.finished.set()


def _publish_round(topic: Topic, update: Update, inbox: Inbox) -> None:
    topic.publish(update)
    for following in islice(inbox.drain(), ROUND_TRADES - 1):
        topic.publish(following)


def publish_conflated(topic: Topic, update: Update, inbox: Inbox) -> None:
    """Take all waiting updates in an overload, count each as a version, and publish their sum."""
    version, updates = topic.version, chain([update], inbox.drain())
    changes = [change for each in updates if (change := topic.absorb(each))]
    if topic.watched:
        topic.context.stats.conflated += max(0, topic.version - version - 1)
    topic.publish_since(version, changes)
