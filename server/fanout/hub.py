"""All topics and who subscribes to which; owns the tasks of the active ones and the flusher."""

import secrets
import socket
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from time import time_ns
from typing import Literal

import trio
from msgspec import structs

from server.fanout.blocked_writers import BlockedWriters
from server.fanout.breaker import BreakerPolicy, BreakerState
from server.fanout.flusher import Flusher
from server.fanout.frame import text_frame
from server.fanout.freshness import Freshness
from server.fanout.inbox import Inbox
from server.fanout.journal import Journal
from server.fanout.outbox import DeflatingOutbox, Outbox
from server.fanout.recovery import Recovery
from server.fanout.shift import ROUND_TRADES, run_shift
from server.fanout.stats import FanoutStats
from server.fanout.status import FeedStatus
from server.fanout.subscriber_set import SubscriberSet
from server.fanout.throttle import Throttles, granted
from server.fanout.topic import Topic, TopicContext, full_quotes
from server.quotes.instrument import FIRST_SEEN_DECIMALS, Instrument
from server.quotes.messages import Status, encode
from server.quotes.quote import Quote, Trade
from server.quotes.snapshot import LiveSnapshot, Snapshot

TOPIC_GRACE = 30.0
"""Seconds an unwatched topic stays active: a page reload should not restart its task."""

RETIRE_INTERVAL = 5.0
"""Seconds between two looks for topics whose grace is over."""


ONE_MESSAGE = 1000
"""Topics whose full quotes go in one message, 260 KB that are made and kept for one client: of a
catalogue of 100,000 that would be 27 MB, and a tenth of a second in which nothing else happens.
"""


class Hub:
    """The fan-out's state. All methods but the coroutines are immediate and never yield.

    Arguments:
        breaker: when a connection's full socket is given up.
        quiet_after: seconds without a trade after which a symbol's watchers are told.
    """

    def __init__(
        self,
        instruments: Iterable[Instrument] = (),
        *,
        breaker: BreakerPolicy = BreakerPolicy(),  # noqa: B008 (a named tuple cannot change)
        quiet_after: float = 60.0,
    ) -> None:
        self.epoch = new_epoch()
        self.stats = FanoutStats()
        self.topics: dict[str, Topic] = {}
        self.delisted: dict[str, Topic | None] = {}
        self.status = FeedStatus()
        self.journal = Journal()
        self._books = TopicContext(self.stats, self.journal)
        self._outboxes = SubscriberSet()
        self._everyone = SubscriberSet()
        self._flusher = Flusher(self.stats)
        self._blocked_writers = BlockedWriters(breaker)
        self._throttles = Throttles()
        self._freshness = Freshness(self, self._flusher, quiet_after)
        self._tasks: trio.Nursery
        for instrument in instruments:
            self.list_instrument(instrument)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the tasks of topics and outboxes until cancelled."""
        async with trio.open_nursery() as tasks:
            self._tasks = self._blocked_writers.tasks = tasks
            tasks.start_soon(self._flusher.run)
            tasks.start_soon(self._throttles.run)
            tasks.start_soon(self._retire_topics)
            tasks.start_soon(self._freshness.run)
            task_status.started()

    def list_instrument(
        self,
        instrument: Instrument,
        first: Trade | None = None,
        *,
        last: Snapshot | None = None,
        ts: int | None = None,
    ) -> Topic:
        """Add a symbol, known from its `first` trade, with the price it had `last`, or not traded
        yet, taken in at `ts` or now; those who watch everything get its quote.
        """
        topic = self._list(instrument, first, last, ts)
        if topic.quote_due:
            topic.publish_quote(self._flusher, topic.ts)
        return topic

    def _list(
        self,
        instrument: Instrument,
        first: Trade | None = None,
        last: Snapshot | None = None,
        ts: int | None = None,
    ) -> Topic:
        now = time_ns() // 1000 if ts is None else ts
        ts, time_us = (first.ts, first.time_us) if first else (now, now)
        topic = self.delisted.pop(instrument.symbol, None)
        if topic:
            topic.revive(instrument, self._everyone, self.epoch)
        else:
            topic = Topic(instrument, self._everyone, self._books, self.epoch, ts, time_us)
        if last:
            topic.resume(last)
        self.topics[instrument.symbol] = topic
        if self._everyone:
            self._freshness.on_watched(topic)
            topic.quote_due = True
        return topic

    def list_snapshots(self, snapshots: Iterable[Snapshot]) -> None:
        """Add the symbols that are not there yet; those who watch everything get their quotes."""
        new = [each for each in snapshots if each.symbol not in self.topics]
        self._publish_due([self._list(each.instrument, last=each) for each in new])

    def relist(self, snapshots: Iterable[Snapshot]) -> None:
        """Take over reference data of symbols that are there; who watches them gets full quotes."""
        topics = []
        for snapshot in snapshots:
            if topic := self.topics.get(snapshot.symbol):
                topic.relist(snapshot.instrument)
                topics.append(topic)
        self._publish_due(topics)

    def delist(self, symbols: Iterable[str]) -> None:
        """Take symbols away from everybody; trades of them, and what other instances tell of them, are
        dropped until they are listed again, also if they never were here.
        """
        for symbol in symbols:
            topic = self.topics.pop(symbol, None)
            if topic:
                topic.delist(self._flusher)
            self.delisted[symbol] = topic or self.delisted.get(symbol)

    def known_topics(self) -> Iterator[Topic]:
        """All topics, also of symbols that were delisted: their last prices are to be kept."""
        return chain(self.topics.values(), filter(None, self.delisted.values()))

    def adopt(
        self, snapshots: Iterable[LiveSnapshot], *, older: bool = False, listed: bool = False
    ) -> None:
        """Add the symbols that are not there yet, those that were delisted only if they are `listed`
        again, and be as other instances are where theirs is newer, or with `older` wherever it is
        different: then a new epoch has to begin at once.
        """
        adopted = []
        for snapshot in snapshots:
            topic = self.topics.get(snapshot.symbol)
            if topic is None:
                if listed or snapshot.symbol not in self.delisted:
                    adopted.append(self._list(snapshot.instrument, last=snapshot, ts=snapshot.ts))
            elif older:
                if (topic.version, topic.ts) != (snapshot.version, snapshot.ts):
                    topic.adopt(snapshot)
            elif snapshot.version > topic.version:
                topic.adopt(snapshot)
                topic.quote_due = topic.watched
                adopted.append(topic)
        self._publish_due(adopted)

    def discard_waiting(self) -> None:
        """Forget what was given to topics and they have not published yet."""
        for topic in self.topics.values():
            topic.discard_waiting()

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

    def is_watched(self, symbol: str) -> bool:
        """Whether anybody would get this symbol's updates."""
        topic = self.topics.get(symbol)
        return topic is not None and topic.watched

    def price_decimals(self, symbol: str) -> int:
        """The symbol's tick precision, or that with which it would be listed. Safe in any thread."""
        topic = self.topics.get(symbol)
        return topic.instrument.price_decimals if topic else FIRST_SEEN_DECIMALS

    @property
    def breakers(self) -> Mapping[BreakerState, int]:
        """Circuit breakers that are not closed, by state."""
        return self._blocked_writers.breakers

    @property
    def conflation(self) -> float:
        """Seconds between two publications of one symbol in an overload, else 0."""
        return self._flusher.conflation

    def attach(self, sock: socket.socket, *, deflate: bool = False) -> Outbox:
        """The outbox of a new connection, which gets what is sent to everybody; `deflate`: in
        compressed form.
        """
        kind = DeflatingOutbox if deflate else Outbox
        outbox = kind(sock, self.stats, self._blocked_writers)
        self._outboxes.add(outbox)
        return outbox

    def detach(self, outbox: Outbox, topics: Iterable[Topic]) -> None:
        """Forget a connection and its subscriptions to `topics`."""
        self._outboxes.discard(outbox)
        self._throttles.clear(outbox)
        self.unsubscribe_everything(outbox)
        for topic in topics:
            self.unsubscribe(outbox, topic)
        outbox.abandon()

    def subscribe(self, outbox: Outbox, topic: Topic) -> None:
        """Send `topic`'s updates to `outbox` from its present version on; harmless if it is so."""
        if not (topic.watched or topic.active):
            self._freshness.on_watched(topic)
        topic.subscribers.add(outbox)
        outbox.cancel(topic.farewell)  # it was delisted a moment ago, and is back
        self._activate(topic)

    def unsubscribe(self, outbox: Outbox, topic: Topic) -> None:
        """Send no more; the last to leave starts the topic's grace time."""
        topic.subscribers.discard(outbox)
        topic.idle_since = trio.current_time()
        outbox.discard(topic)
        outbox.discard(topic.freshness)

    def subscribe_everything(self, outbox: Outbox, single: Iterable[Topic] = ()) -> None:
        """Send all symbols' updates, also those of symbols still to come.

        Takes the place of the subscriptions to `single`; what is owed of them stays owed.
        """
        if not self._everyone:
            for topic in self.topics.values():
                if not (topic.watched or topic.active):
                    self._freshness.on_watched(topic)
        for topic in single:
            topic.subscribers.discard(outbox)
        self._everyone.add(outbox)
        if outbox.blocked:
            for topic in self.topics.values():
                outbox.cancel(topic.farewell)

    def unsubscribe_everything(self, outbox: Outbox) -> None:
        """The opposite of `subscribe_everything`; single subscriptions stay."""
        if outbox not in self._everyone:
            return
        self._everyone.discard(outbox)
        now = trio.current_time()
        for topic in self.topics.values():
            topic.idle_since = now
            outbox.discard(topic)
            outbox.discard(topic.freshness)
        outbox.flush()
        for gone in filter(None, self.delisted.values()):
            outbox.replace_pending(gone, gone.farewell)

    def send_quotes(self, outbox: Outbox, topics: list[Topic]) -> None:
        """Send the full quotes of `topics`, in one message if they are not very many, or owe them where
        that has to wait.
        """
        if outbox.blocked or len(topics) > ONE_MESSAGE:
            outbox.send_many(topics)
        elif len(topics) == 1:
            outbox.send(topics[0].current_frame())
        elif topics:
            outbox.send(text_frame(encode(full_quotes(topics))))
        self._send_freshness(outbox, topics)

    def send_recovery(self, outbox: Outbox, recovery: Recovery) -> None:
        """Send what brings a client up to date: full quotes, then the updates it missed."""
        self.send_quotes(outbox, recovery.quotes)
        outbox.send_updates(recovery.patches)
        self._send_freshness(outbox, recovery.held)

    def _send_freshness(self, outbox: Outbox, topics: list[Topic]) -> None:
        for topic in topics:
            if topic.freshness.quiet:
                outbox.send_current(topic.freshness)

    def begin_epoch(self, epoch: str) -> None:
        """Count the versions of all quotes as those of `epoch`, a new line of them. Everybody gets the
        full quotes of what they watch, of each symbol before any update of it.
        """
        self.epoch = epoch
        for topic in self.topics.values():
            topic.begin_epoch(epoch)
        self._publish_due(self.topics.values())

    def _publish_due(self, topics: Iterable[Topic]) -> None:
        if due := [topic for topic in topics if topic.quote_due]:
            self._tasks.start_soon(self._publish_quotes, due)

    async def _publish_quotes(self, due: list[Topic]) -> None:
        """A round at a time, as ten thousand who watch hundreds of symbols are millions of frames."""
        begun = time_ns() // 1000
        for start in range(0, len(due), ROUND_TRADES):
            for topic in due[start : start + ROUND_TRADES]:
                if topic.quote_due:  # no trade was faster
                    topic.publish_quote(self._flusher, begun)
            await trio.lowlevel.checkpoint()
            await self._flusher.wait_round()

    def throttle(self, outbox: Outbox, interval: float) -> float:
        """Send each symbol at most once in `interval` seconds, 0 for no limit; what is granted."""
        interval = granted(interval)
        self._throttles.set(outbox, interval)
        return interval

    def set_conflation(self, interval: float) -> None:
        """Publish each symbol at most once in `interval` seconds, and tell every connection."""
        self._flusher.conflation = interval
        self._announce(structs.replace(self.status.message, interval=interval))

    def set_status(self, status: Literal["live", "stale"], reason: str) -> None:
        """Tell every connection whether prices are flowing, if that is news."""
        message = structs.replace(self.status.message, status=status, reason=reason)
        if message != self.status.message:
            self._announce(message)

    def _announce(self, message: Status) -> None:
        self.status.message = message
        self._flusher.queue(self.status.current_frame(), self._outboxes, time_ns() // 1000)

    async def finish_topics(self) -> None:
        """Wait until every active topic has published all it was given until now."""
        active = [topic for topic in self.topics.values() if topic.active]
        finished = [topic.finished for topic in active]
        for topic in active:
            topic.deactivate()
            if topic.watched:
                self._activate(topic)
        for event in finished:
            await event.wait()

    def open_inbox(self, topic: Topic) -> Inbox | None:
        """Where updates of a symbol that is watched go, None for another. The tasks of those that only
        who watches everything does start with a trade: all at once, of 100,000, took five seconds.
        """
        if topic.watched:
            self._activate(topic)
        return topic.inbox

    def _activate(self, topic: Topic) -> None:
        if not topic.active:
            self._tasks.start_soon(run_shift, topic.activate(), topic, self._flusher)

    async def _retire_topics(self) -> None:
        while True:
            await trio.sleep(RETIRE_INTERVAL)
            overdue = trio.current_time() - TOPIC_GRACE
            for topic in self.topics.values():
                if not topic.watched and topic.idle_since <= overdue and not topic.waiting:
                    topic.deactivate()


def new_epoch() -> str:
    """A name that no other line of versions has: of one server, from its start on."""
    return f"{time_ns() // 1_000_000}.{secrets.token_hex(4)}"
