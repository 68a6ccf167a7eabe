"""All topics and their subscribers; owns the tasks of the fan-out."""

import secrets
import socket
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from time import time_ns
from typing import Literal

import msgspec
import trio

from server.fanout.agreement import is_of, state_after, take_over
from server.fanout.bars import Bars
from server.fanout.blocked_writers import BlockedWriters
from server.fanout.breaker import BreakerPolicy, BreakerState
from server.fanout.flusher import Flusher
from server.fanout.frame import message_frame
from server.fanout.freshness import Freshness
from server.fanout.journal import Journal
from server.fanout.outbox import DeflatingOutbox, Outbox
from server.fanout.recovery import Recovery
from server.fanout.removal import RemovalNotice, take_away
from server.fanout.renaming import Renaming
from server.fanout.stats import FanoutStats
from server.fanout.status import FeedStatus, MarketStatus
from server.fanout.subscriber_set import Audience
from server.fanout.throttle import Throttles, granted
from server.fanout.topic import Topic
from server.fanout.topic_context import TopicContext
from server.fanout.topic_task import TopicTasks
from server.history.trades import TRADES_MEMORY, RecentTrades
from server.quotes.instrument import UNLISTED, Instrument
from server.quotes.messages import MarketState
from server.quotes.quote import Quote
from server.quotes.snapshot import LiveSnapshot, Snapshot, opening_snapshot
from server.quotes.update import Change
from server.quotes.view import JSON, View

ONE_MESSAGE = 1000
"""The most topics whose full quotes go in one message: 260 KB, made and kept for one client. A message
for 100,000 topics would be 27 MB, and would stop everything else for a tenth of a second.
"""


class Hub:
    """The fan-out's state. Only the coroutines among its methods yield.

    Arguments:
        breaker: when to give up a connection whose socket stays full.
        quiet_after: seconds without a trade after which a symbol's subscribers are told.
    """

    def __init__(
        self,
        instruments: Iterable[Instrument] = (),
        *,
        breaker: BreakerPolicy = BreakerPolicy(),
        quiet_after: float = 60.0,
        trades_memory: int = TRADES_MEMORY,
    ) -> None:
        self.epoch = new_epoch()
        self.stats = FanoutStats()
        self.topics: dict[str, Topic] = {}
        self.delisted: dict[str, Topic | None] = {}
        self.unchecked: set[str] = set()
        self.journal = Journal()
        self._outboxes = Audience()
        self._everyone = Audience()
        self._flusher = Flusher(self.stats)
        self._markets: dict[str, MarketStatus] = {}
        self.topic_tasks = TopicTasks(self.topics, self._flusher)
        self.bars = Bars(self._flusher, self.instrument, self.topic_tasks.cut)
        self.trades = RecentTrades(trades_memory)
        self._context = TopicContext(
            self.stats, self.journal, self._flusher, self.bars, self.trades
        )
        self.status = FeedStatus(self._flusher, self._outboxes, self.topic_tasks.cut)
        self.blocked_writers = BlockedWriters(breaker)
        # One bound method for all outboxes: each would cost a connection 64 bytes.
        self._start_writing = self.blocked_writers.start
        self._throttles = Throttles()
        self._freshness = Freshness(self.topics, self.status, quiet_after)
        self._renaming = Renaming(
            topics=self.topics,
            delisted=self.delisted,
            markets=self._markets,
            everyone=self._everyone,
            tasks=self.topic_tasks,
            journal=self.journal,
            bars=self.bars,
            trades=self.trades,
            list_state=self._list,
            adopt=self.adopt,
            delist=self.delist,
            subscribe=self.subscribe,
        )
        self.renamed = self._renaming.present
        for instrument in instruments:
            self.list_instrument(instrument)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the tasks of topics and outboxes until cancelled."""
        async with trio.open_nursery() as tasks:
            self.topic_tasks.nursery = self.blocked_writers.tasks = tasks
            tasks.start_soon(self._flusher.run)
            tasks.start_soon(self._throttles.run)
            tasks.start_soon(self.topic_tasks.run_retirement)
            tasks.start_soon(self._freshness.run)
            tasks.start_soon(self.status.run)
            tasks.start_soon(self.bars.run)
            task_status.started()

    def list_instrument(self, instrument: Instrument, first: Change | None = None) -> Topic:
        """Add a symbol, perhaps known from its `first` price; send its quote to subscribers of `*`."""
        snapshot = opening_snapshot(instrument)
        if first:
            snapshot = msgspec.structs.replace(snapshot, quoted_at=first.time_us)
        topic = self._list(snapshot, first.ts if first else None)
        if topic.quote_due:
            topic.publish_quote(topic.ts)
        return topic

    def _list(self, snapshot: Snapshot, ts: int | None = None) -> Topic:
        """Add a symbol. `ts`: when its price was received, by default now."""
        topic = self.delisted.pop(snapshot.symbol, None)
        if topic and is_of(topic, snapshot):
            topic.revive(snapshot, self._everyone, self.epoch)
        else:
            snapshot = state_after(topic, snapshot) if topic else snapshot
            ts = time_ns() // 1000 if ts is None else ts
            topic = Topic(snapshot, self._everyone, self._context, self.epoch, ts)
        self.topics[snapshot.symbol] = topic
        if self._everyone:
            self._freshness.on_watched(topic)
            topic.quote_due = True
        return topic

    def list_snapshots(self, snapshots: Iterable[Snapshot]) -> None:
        """Add the symbols that are not there yet; send their quotes to subscribers of `*`."""
        new = [each for each in snapshots if each.symbol not in self.topics]
        self.topic_tasks.publish_due([self._list(each) for each in new])

    def relist(self, snapshots: Iterable[Snapshot]) -> None:
        """Take over the catalogue's data of listed symbols (see `Topic.relist`). If they changed,
        subscribers get the full quote.
        """
        topics = []
        for snapshot in snapshots:
            self.unchecked.discard(snapshot.symbol)
            topic = self.topics.get(snapshot.symbol)
            # The next look at the catalogue finds a rename that was made meanwhile.
            if topic and is_of(topic, snapshot):
                topic.relist(snapshot)
                topics.append(topic)
        self.topic_tasks.publish_due(topics)

    def delist(self, symbols: Iterable[str]) -> None:
        """Take symbols away from all subscribers, even if they are not known here. Drop their trades
        and their moves from other instances until they are listed again.
        """
        for symbol in symbols:
            topic = self.topics.pop(symbol, None)
            self._markets.pop(symbol, None)
            if topic:
                take_away(topic)
            self.bars.delist(symbol)
            self.trades.drop([symbol])
            self.delisted[symbol] = topic or self.delisted.get(symbol)
            self.renamed.pop(symbol, None)

    def follow(self, rows: Iterable[Snapshot], *, certain: bool = False) -> dict[str, str | None]:
        """Rename instruments that have other symbols in `rows` (see `Renaming.follow`)."""
        return self._renaming.follow(rows, certain=certain)

    def rename(self, symbol: str, row: Snapshot) -> None:
        """Delist `symbol`, and go on as the catalogue's `row`: with the quote, its subscribers, and
        trades that a feed still gives under the old name.

        The version goes on above those of both symbols. So no client takes it for one that it has.
        """
        self._renaming.rename({symbol: row})

    def known_topics(self) -> Iterator[Topic]:
        """Return all topics, also those of delisted symbols, whose last prices the store keeps."""
        return chain(self.topics.values(), filter(None, self.delisted.values()))

    def adopt(
        self, snapshots: Iterable[LiveSnapshot], *, older: bool = False, listed: bool = False
    ) -> None:
        """Add the symbols that are not there yet, and take over newer prices from other instances. The
        added symbols are `unchecked`: the catalogue may have newer data of them.

        Arguments:
            older: take over every price that is different. The caller has to begin an epoch at once.
            listed: the symbols are listed again, so add those that were delisted, too.
        """
        adopted, snapshots = [], list(snapshots)
        self.follow(snapshots)
        for snapshot in snapshots:
            topic = self.topics.get(snapshot.symbol)
            if topic is None:
                if listed or snapshot.symbol not in self.delisted:
                    self.unchecked.add(snapshot.symbol)
                    adopted.append(self._list(snapshot, snapshot.ts))
                    if snapshot.minutes:
                        self.bars.minutes.adopt(snapshot.symbol, snapshot.minutes)
                continue
            if not is_of(topic, snapshot):
                # One of both instances has not heard of a rename yet.
                continue
            take_over(topic, snapshot, older=older)
            adopted.append(topic)
        self.topic_tasks.publish_due(adopted)

    def begin_epoch(self, epoch: str) -> None:
        """Count the versions of all quotes anew, as those of `epoch`. Each subscriber gets a symbol's
        full quote before any update of it.
        """
        self.epoch = epoch
        for topic in self.topics.values():
            topic.begin_epoch(epoch)
        self.topic_tasks.publish_due(self.topics.values())

    def discard_waiting(self) -> None:
        """Forget all updates that topics have not published yet."""
        for topic in self.topics.values():
            topic.discard_waiting()

    def snapshot(self, symbol: str) -> Snapshot | None:
        """Return the present state of a symbol, None if it is not here."""
        return topic.snapshot() if (topic := self.topics.get(symbol)) else None

    @property
    def subscriptions(self) -> int:
        """The pairs of connection and symbol; a subscriber to `*` counts for every symbol."""
        single = sum(len(topic.subscribers) for topic in self.topics.values())
        return single + len(self._everyone) * len(self.topics)

    @property
    def active_symbols(self) -> int:
        """The number of topics with a task."""
        return sum(topic.active for topic in self.topics.values())

    def watched_quotes(self) -> list[Quote]:
        """Return the quotes of all symbols that somebody watches."""
        return [topic.quote for topic in self.topics.values() if self.is_watched(topic.symbol)]

    def present_quote(self, quote: Quote) -> Quote:
        """Return `quote` as it is now."""
        return topic.quote if (topic := self.topics.get(quote.symbol)) else quote

    def is_watched(self, symbol: str) -> bool:
        """Return whether anybody would get this symbol's updates, or its bars."""
        topic = self.topics.get(symbol)
        return topic is not None and (topic.watched or symbol in self.bars)

    def instrument(self, symbol: str) -> Instrument:
        """Return a symbol's reference data, or those that a new one gets. Safe in any thread."""
        topic = self.topics.get(self.present_symbol(symbol))
        return topic.instrument if topic else UNLISTED

    def last_row(self, symbol: str) -> int:
        """Return the number of the last row of a replay that the symbol's quote includes, or 0."""
        symbol = self.present_symbol(symbol)
        topic = self.topics.get(symbol) or self.delisted.get(symbol)
        return topic.row if topic else 0

    def present_symbol(self, symbol: str) -> str:
        """Return the symbol of the instrument that a feed calls `symbol`: renamed, or listed again."""
        return self.renamed.get(symbol, symbol) if symbol in self.delisted else symbol

    @property
    def breakers(self) -> Mapping[BreakerState, int]:
        """The number of circuit breakers that are not closed, by state."""
        return self.blocked_writers.breakers

    @property
    def conflation(self) -> float:
        """Seconds between two publications of one symbol in an overload, else 0."""
        return self._flusher.conflation

    def attach(self, sock: socket.socket, view: View = JSON, *, deflate: bool = False) -> Outbox:
        """Return the outbox of a new connection; with `deflate`, it sends updates compressed."""
        kind = DeflatingOutbox if deflate else Outbox
        outbox = kind(sock, self.stats, self._start_writing, view)
        self._outboxes.add(outbox)
        return outbox

    def detach(self, outbox: Outbox, topics: Iterable[Topic]) -> None:
        """Forget a connection and its subscriptions to `topics`."""
        self._outboxes.discard(outbox)
        self._throttles.clear(outbox)
        self.bars.detach(outbox)
        self.unsubscribe_everything(outbox)
        for topic in topics:
            self.unsubscribe(outbox, topic)
        outbox.abandon()

    def subscribe(self, outbox: Outbox, topic: Topic) -> None:
        """Send `topic`'s updates to `outbox` after its present version; harmless if subscribed."""
        if not (topic.watched or topic.active):
            self._freshness.on_watched(topic)
        topic.subscribers.add(outbox)
        self.topic_tasks.start(topic)

    def unsubscribe(self, outbox: Outbox, topic: Topic) -> None:
        """Send no more of `topic`; the last to leave starts the topic's grace time."""
        topic.subscribers.discard(outbox)
        topic.idle_since = trio.current_time()
        outbox.forget([topic, topic.freshness])
        if market := self._markets.get(topic.symbol):
            outbox.forget([market])

    def subscribe_everything(self, outbox: Outbox, single: Iterable[Topic] = ()) -> None:
        """Send all symbols' updates, also those of symbols that are listed later.

        It replaces the subscriptions to `single`. Their pending quotes stay pending.
        """
        if not self._everyone:
            for topic in self.topics.values():
                if not (topic.watched or topic.active):
                    self._freshness.on_watched(topic)
        for topic in single:
            topic.subscribers.discard(outbox)
        self._everyone.add(outbox)

    def unsubscribe_everything(self, outbox: Outbox) -> None:
        """End the subscription to everything; subscriptions to single symbols stay."""
        if outbox not in self._everyone:
            return
        self._everyone.discard(outbox)
        now = trio.current_time()
        for topic in self.topics.values():
            topic.idle_since = now
        outbox.forget(self.topics.values())
        outbox.forget(topic.freshness for topic in self.topics.values())
        outbox.forget(self._markets.values())
        for gone in filter(None, self.delisted.values()):
            if outbox.is_pending(gone):
                outbox.send_current(RemovalNotice(gone))

    def send_quotes(self, outbox: Outbox, topics: list[Topic]) -> None:
        """Send the full quotes of those `topics` that have a price, in one message unless they are very
        many. If the outbox is blocked, make them pending.
        """
        priced = [topic for topic in topics if not topic.waiting]
        if outbox.blocked or len(priced) > ONE_MESSAGE:
            outbox.send_many(priced)
        elif len(priced) == 1:
            outbox.send(priced[0].current_frame(outbox.view))
        elif priced:
            outbox.send(message_frame(outbox.view.full(priced), outbox.view))
        self._send_freshness(outbox, topics)

    def send_recovery(self, outbox: Outbox, recovery: Recovery) -> None:
        """Send a returning client the full quotes it needs, then the updates it missed."""
        self.send_quotes(outbox, recovery.quotes)
        outbox.send_updates(recovery.patches)
        self._send_freshness(outbox, recovery.held)

    def _send_freshness(self, outbox: Outbox, topics: list[Topic]) -> None:
        for topic in topics:
            if topic.freshness.quiet:
                outbox.send_current(topic.freshness)
            market = self._markets.get(topic.symbol) if self._markets else None
            if market and market.is_news:
                outbox.send_current(market)

    def throttle(self, outbox: Outbox, interval: float) -> float:
        """Send each symbol at most once in `interval` seconds, 0 for no limit; return the one kept."""
        interval = granted(interval)
        self._throttles.set(outbox, interval)
        return interval

    def set_conflation(self, interval: float) -> None:
        """Publish each symbol at most once in `interval` seconds, and tell every connection."""
        self._flusher.conflation = interval
        self.status.set_interval(interval)

    def announce(self, symbol: str, status: MarketState, reason: str) -> None:
        """Tell a symbol's subscribers, and later ones, that its market was halted, closed or opened."""
        symbol = self.present_symbol(symbol)
        market = self._markets.get(symbol) or MarketStatus(symbol)
        # A follower may hear of a symbol before its first subscriber lists it.
        if symbol not in self.delisted and market.set(status, reason):
            self._markets[symbol] = market
            if topic := self.topics.get(symbol):
                topic.publish_source(market)

    def set_status(self, status: Literal["live", "stale"], reason: str) -> None:
        """Tell every connection whether prices are flowing, if that is news. It comes behind all
        prices that came before it.
        """
        self.status.set(status, reason)


def new_epoch() -> str:
    """Return a new epoch's name, which no other server and no earlier start of this one has used."""
    return f"{time_ns() // 1_000_000}.{secrets.token_hex(4)}"
