"""All topics and who subscribes to which; owns the tasks of the active ones and the flusher."""

import socket
from collections.abc import Iterable
from time import time_ns
from typing import Literal

import trio

from server.fanout.flusher import Flusher
from server.fanout.frame import text_frame
from server.fanout.outbox import Outbox
from server.fanout.stats import FanoutStats
from server.fanout.topic import Topic, full_quotes
from server.quotes.instrument import Instrument
from server.quotes.messages import Status, encode
from server.quotes.quote import Quote
from server.quotes.snapshot import Snapshot

TOPIC_GRACE = 30.0
"""Seconds an unwatched topic stays active: a page reload should not restart its task."""

RETIRE_INTERVAL = 5.0
"""Seconds between two looks for topics whose grace is over."""


class FeedStatus:
    """Whether prices are flowing, as clients are told; a source, so a slow client is owed it."""

    def __init__(self) -> None:
        self.message = Status("live", "feed_started")

    def current_frame(self) -> bytes:
        """The status as one frame."""
        return text_frame(encode(self.message))


class Hub:
    """The fan-out's state. All methods but the coroutines are immediate and never yield."""

    def __init__(self, instruments: Iterable[Instrument] = ()) -> None:
        self.stats = FanoutStats()
        self.topics: dict[str, Topic] = {}
        self.status = FeedStatus()
        self._outboxes: set[Outbox] = set()
        self._everyone: set[Outbox] = set()
        self._flusher = Flusher(self.stats)
        self._tasks: trio.Nursery
        for instrument in instruments:
            self.list_instrument(instrument)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the tasks of topics and outboxes until cancelled."""
        async with trio.open_nursery() as tasks:
            self._tasks = tasks
            tasks.start_soon(self._flusher.run)
            tasks.start_soon(self._retire_topics)
            task_status.started()

    def list_instrument(self, instrument: Instrument, last: Snapshot | None = None) -> Topic:
        """Add a symbol, with the price it had `last`; those who watch everything get it at once."""
        topic = Topic(instrument, self._everyone, self.stats, time_ns() // 1000)
        if last:
            topic.resume(last)
        self.topics[instrument.symbol] = topic
        if self._everyone:
            self._activate(topic)
            for outbox in self._everyone:
                outbox.send_current(topic)
        return topic

    def list_snapshots(self, snapshots: Iterable[Snapshot]) -> None:
        """Add the symbols that are not there yet."""
        for snapshot in snapshots:
            if snapshot.symbol not in self.topics:
                self.list_instrument(snapshot.instrument, snapshot)

    def snapshot(self, symbol: str) -> Snapshot | None:
        """The present state of a symbol, None if it is not here."""
        topic = self.topics.get(symbol)
        return topic.snapshot() if topic else None

    @property
    def subscriptions(self) -> int:
        """Pairs of connection and symbol; whoever watches everything counts for every symbol."""
        single = sum(len(topic.subscribers) for topic in self.topics.values())
        return single + len(self._everyone) * len(self.topics)

    @property
    def active_symbols(self) -> int:
        """Topics with a task."""
        return sum(topic.active for topic in self.topics.values())

    def watched_quotes(self) -> list[Quote]:
        """The quotes of all symbols that somebody watches."""
        return [topic.quote for topic in self.topics.values() if topic.watched]

    def attach(self, sock: socket.socket) -> Outbox:
        """The outbox of a new connection, which gets what is sent to everybody."""
        outbox = Outbox(sock, self.stats, self._tasks.start_soon)
        self._outboxes.add(outbox)
        return outbox

    def detach(self, outbox: Outbox, topics: Iterable[Topic]) -> None:
        """Forget a connection and its subscriptions to `topics`."""
        self._outboxes.discard(outbox)
        self.unsubscribe_everything(outbox)
        for topic in topics:
            self.unsubscribe(outbox, topic)
        outbox.abandon()

    def subscribe(self, outbox: Outbox, topic: Topic) -> None:
        """Send `topic`'s updates to `outbox` from its present version on; harmless if it is so."""
        topic.subscribers.add(outbox)
        self._activate(topic)

    def unsubscribe(self, outbox: Outbox, topic: Topic) -> None:
        """Send no more; the last to leave starts the topic's grace time."""
        topic.subscribers.discard(outbox)
        topic.idle_since = trio.current_time()
        outbox.forgive(topic)

    def subscribe_everything(self, outbox: Outbox, single: Iterable[Topic] = ()) -> None:
        """Send all symbols' updates, also those of symbols still to come.

        Takes the place of the subscriptions to `single`; what is owed of them stays owed.
        """
        for topic in single:
            topic.subscribers.discard(outbox)
        self._everyone.add(outbox)
        for topic in self.topics.values():
            self._activate(topic)

    def unsubscribe_everything(self, outbox: Outbox) -> None:
        """The opposite of `subscribe_everything`; single subscriptions stay."""
        if outbox not in self._everyone:
            return
        self._everyone.discard(outbox)
        now = trio.current_time()
        for topic in self.topics.values():
            topic.idle_since = now
            outbox.forgive(topic)

    def send_quotes(self, outbox: Outbox, topics: list[Topic]) -> None:
        """Send the full quotes of `topics` in one message, or owe them where that has to wait."""
        if outbox.blocked:
            for topic in topics:
                outbox.owe(topic)
        elif len(topics) == 1:
            outbox.send(topics[0].current_frame())
        elif topics:
            outbox.send(text_frame(encode(full_quotes(topics))))

    def set_status(self, status: Literal["live", "stale"], reason: str) -> None:
        """Tell every connection whether prices are flowing, if that is news."""
        message = Status(status, reason)
        if message == self.status.message:
            return
        self.status.message = message
        for outbox in self._outboxes:
            outbox.send_current(self.status)

    async def finish_topics(self) -> None:
        """Wait until every active topic has published all it was given."""
        active = [topic for topic in self.topics.values() if topic.active]
        for topic in active:
            topic.deactivate()
        for topic in active:
            await topic.finished.wait()
            if topic.watched:
                self._activate(topic)

    def _activate(self, topic: Topic) -> None:
        if not topic.active:
            self._tasks.start_soon(topic.run, topic.activate(), self._flusher)

    async def _retire_topics(self) -> None:
        while True:
            await trio.sleep(RETIRE_INTERVAL)
            overdue = trio.current_time() - TOPIC_GRACE
            for topic in self.topics.values():
                if not topic.watched and topic.idle_since <= overdue and not topic.waiting:
                    topic.deactivate()
