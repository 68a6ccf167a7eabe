"""One symbol: its quote, the quote's version, and its subscribers.

A topic always exists. While somebody watches it, it is *active*: it has an inbox and a task. An
inactive topic only keeps its quote up to date, and encodes nothing.
"""

from collections.abc import Iterable, Sequence
from time import time_ns

import trio
from msgspec.structs import replace

from server.fanout.frame import Source, UpdateFrame, text_frame
from server.fanout.history import HISTORY_UPDATES, History
from server.fanout.inbox import Inbox
from server.fanout.status import TopicStatus
from server.fanout.subscriber_set import SubscriberSet
from server.fanout.topic_context import NEGATIVE, NO_VERSION_LEFT, TopicContext
from server.quotes.adjustment import (
    adjusted_change,
    adjusted_move,
    begins_anew,
    in_session_of,
    newest_reference,
    up_to_date,
)
from server.quotes.instrument import LARGEST_WHOLE
from server.quotes.messages import QuotesPatch, encode
from server.quotes.opening import begun_once, has_trades, opened, opening_of
from server.quotes.patch import Add, Operation, Remove, difference, quote_pointer
from server.quotes.quote import Quote, move_of, quote_after, resumed_quote, snapshot_of
from server.quotes.snapshot import LiveSnapshot, Snapshot, live, row_of
from server.quotes.update import Move, Trade, Update


class Topic(Source):
    """Owned by the hub, which changes `subscribers` and `everyone` (the `*` subscribers, one set for
    all topics). As a source it stands for the full quote.

    `quote_due`: subscribers are to get the full quote before any update. `delisted`: the symbol is
    gone, and a full quote takes it away again. `row`: the last trade's, as in `Trade`. `adjustments`:
    the number of adjustments that its prices have had. `adjusted_at`: the moments of those made here.
    `successor`: the topic of the new symbol, if it was renamed. `newest_inbox`: the last one, also if
    it is closed.
    """

    # A slot, as a property would double the time of `Outbox.conflate`.
    key: str

    __slots__ = (
        "_current",
        "adjusted_at",
        "adjustments",
        "context",
        "delisted",
        "epoch",
        "everyone",
        "freshness",
        "history",
        "idle_since",
        "inbox",
        "instrument",
        "key",
        "moved_at",
        "newest_inbox",
        "pointer",
        "quote",
        "quote_due",
        "row",
        "subscribers",
        "successor",
        "ts",
        "version",
    )

    def __init__(
        self,
        snapshot: Snapshot,
        everyone: SubscriberSet,
        context: TopicContext,
        epoch: str,
        ts: int,
    ) -> None:
        """Go on from `snapshot`. `ts` is when this server received its price."""
        self.context = context
        self.instrument = snapshot.instrument
        self.key = snapshot.symbol
        self.pointer = quote_pointer(snapshot.symbol)
        self.quote = resumed_quote(snapshot)
        self.epoch = epoch
        self.version = snapshot.version
        self.ts = ts
        self.row = row_of(snapshot)
        self.subscribers = SubscriberSet()
        self.everyone = everyone
        self.history = History()
        self.inbox: Inbox | None = None
        self.idle_since = 0.0
        self.freshness = TopicStatus(snapshot.symbol)
        self.moved_at = 0.0
        self.quote_due = False
        self.delisted = False
        self.adjustments = len(snapshot.adjustments.split())
        self.adjusted_at: tuple[int, ...] = ()
        self.successor: Topic | None = None
        self.newest_inbox: Inbox | None = None
        self._current: UpdateFrame | None = None

    @property
    def symbol(self) -> str:
        """The instrument's symbol."""
        return self.instrument.symbol

    @property
    def present(self) -> "Topic":
        """The topic that this one's updates count for: if the symbol was renamed, the new one's."""
        topic = self
        while topic.successor is not None:
            topic = topic.successor
        return topic

    @property
    def active(self) -> bool:
        """Whether trades go through the inbox to the topic's task."""
        return self.inbox is not None

    @property
    def owes(self) -> bool:
        """Whether it has updates that it has not published yet."""
        return self.inbox is not None and self.inbox.waiting

    @property
    def watched(self) -> bool:
        """Whether anybody would get this symbol's updates."""
        return bool(self.subscribers or self.everyone)

    @property
    def waiting(self) -> bool:
        """Whether there is neither a price nor a book yet. Then no client has the quote."""
        return self.instrument.base_price is None and self.version == 1

    def resume(self, snapshot: Snapshot) -> None:
        """Go on from the last price before a restart."""
        state = up_to_date(snapshot, self.instrument)
        if state.version > self.version:
            self.instrument = state.instrument
            self.quote = resumed_quote(state)
            self.version = state.version
            self.row = row_of(snapshot) or self.row

    def adopt(self, snapshot: LiveSnapshot) -> None:
        """Take over another instance's price, also if its version is lower. The reference data stay:
        they are the catalogue's, and may be newer here. Those of another session are taken over.
        """
        if self.instrument.base_price is None:
            self.instrument = replace(self.instrument, base_price=snapshot.base_price)
        self.instrument = in_session_of(self.instrument, snapshot)
        self.quote = resumed_quote(up_to_date(snapshot, self.instrument))
        self.version = snapshot.version
        self.ts = snapshot.ts
        self.row = snapshot.row
        self.moved_at = trio.current_time()
        self._current = None
        self.history.clear()

    def begin_epoch(self, epoch: str) -> None:
        """Count the version as one of `epoch`; the full quote is due to all subscribers."""
        if epoch != self.epoch:
            self.history.on_epoch()
        else:
            self.history.clear()
        self.epoch = epoch
        self._current = None
        self.quote_due = self.watched

    def relist(self, snapshot: Snapshot) -> None:
        """Take over the catalogue's reference data and, unless a feed has moved the quote, its price.

        If they are new, the full quote is due to all subscribers, and to clients that come back with
        this version or an earlier one. Within SETTLING_TIME it is due to all clients that come back, as
        another instance may have sent them the old data.

        The version does not change, because it counts the feed's prices. An adjustment makes one
        version, as it changes the price. So all instances count alike, in whatever order they hear of
        new data.
        """
        moved = self.version > 1
        if snapshot.price is None and not begins_anew(self.instrument, snapshot.instrument):
            # A price that clients have does not go away: a feed has moved it, or an import left it out.
            mine = self.snapshot()
            snapshot = replace(snapshot, base_price=mine.base_price, last_quote=mine.last_quote)
        instrument, old = newest_reference(self.instrument, snapshot.instrument), self.quote
        snapshot = up_to_date(snapshot, instrument)
        if instrument == self.instrument and (moved or resumed_quote(snapshot) == old):
            return
        if instrument.adjustments != self.instrument.adjustments:
            self._count_adjustments(len(instrument.adjustments.split()))
        state = up_to_date(self.snapshot(), instrument)
        self.instrument = instrument
        self.quote = resumed_quote(state if self.version > 1 else snapshot)
        self.version = state.version
        if self.quote.current_price != old.current_price:
            self.ts = time_ns() // 1000
        self._current = None
        self.history.on_relisted(trio.current_time())
        self.quote_due = self.watched
        # Instances that start later learn the reference data from the state that this makes due.
        if self.context.journal.recording:
            self.context.journal.lose([self.symbol])

    def _count_adjustments(self, count: int) -> None:
        """Note when new adjustments came. Updates that wait in an inbox may be from before."""
        new = max(0, count - self.adjustments)
        self.adjusted_at += (time_ns() // 1000,) * new
        self.adjustments = count

    def succeed(self, old: "Topic") -> None:
        """Take the place of `old`, whose symbol was renamed, also for the updates that wait there. The
        task of the first inbox begins behind them.
        """
        old.successor = self
        self.row = max(self.row, old.row)
        count, self.adjustments = self.adjustments, old.adjustments
        self.adjusted_at = old.adjusted_at
        self._count_adjustments(count)
        if self.inbox is None:
            self.idle_since = old.idle_since
            self.newest_inbox = old.newest_inbox or self.newest_inbox

    def revive(self, snapshot: Snapshot, everyone: SubscriberSet, epoch: str) -> None:
        """Go on, listed again, from the last price and version."""
        self.delisted = False
        self.successor = None
        self.everyone = everyone
        self.relist(snapshot)
        self.begin_epoch(epoch)
        self.resume(snapshot)

    def snapshot(self) -> Snapshot:
        """Return the symbol's state as the store keeps it."""
        return snapshot_of(self.instrument, self.quote, self.version)

    def live_snapshot(self) -> LiveSnapshot:
        """Return the symbol's state as it is published to other instances."""
        return live(self.snapshot(), self.ts, self.row)

    def full_operations(self) -> list[Operation]:
        """Return the patch operations that give the full quote, and take it away if it is delisted."""
        add = Add(self.pointer, self.quote)
        return [add, Remove(self.pointer)] if self.delisted else [add]

    def forget_frame(self) -> None:
        """Make the full quote's frame anew the next time."""
        self._current = None

    def current_frame(self) -> UpdateFrame:
        """Return the full quote as one frame, made once per version for all that need it."""
        if self._current is None:
            self._current = UpdateFrame(text_frame(encode(full_quotes([self]))), self)
            self.context.stats.updates_encoded += 1
        return self._current

    def absorb(self, update: Update) -> list[Operation]:
        """Move the quote by `update` and return the patch operations; none if nothing changed.

        An update that changes anything makes the next version. A move has its own version, and is
        dropped if that is not newer. After version LARGEST_WHOLE the quote does not change any more,
        and its subscribers learn that the symbol is quiet. Only a foreign value can be near that.
        """
        old, instrument, traded = self.quote, self.instrument, isinstance(update, Trade)
        if not traded:
            update = begun_once(update, instrument)
        if isinstance(update, Move):
            accepted = self._accepted(update)
            if accepted is None:
                return []
            update, version = accepted, accepted.version
        elif self.version < LARGEST_WHOLE:
            moments = self.adjusted_at
            if moments and update.ts < moments[-1]:
                behind = sum(update.ts < moment for moment in moments)
                update = adjusted_change(update.change, instrument, behind)
            version = self.version + 1
        else:
            self.context.stats.invalid.report("versions", self.symbol, NO_VERSION_LEFT)
            return []
        new = quote_after(old, update, instrument.price_decimals, instrument.size_decimals)
        if old.base_price is None:
            self._begin(new)
        if not traded and (opening := opening_of(update)):
            self.instrument = opened(self.instrument, opening, new)
        operations: list[Operation] = [*difference(old, new, self.pointer, traded=traded)]
        if operations or isinstance(update, Move) or (not traded and has_trades(update)):
            self.moved_at = trio.current_time()
            self.history.settle(self.version, self.moved_at)
            self.quote = new
            self.version = version
            self.ts = update.ts
            self.row = update.row
            self._current = None
            if self.context.journal.recording:
                self.context.journal.record(move_of(update, version, new, self.adjustments))
        return operations

    def _begin(self, new: Quote) -> None:
        """Take over the first base price. A patch does not change it, and no client has a quote before
        its first change.
        """
        if self.waiting or new.base_price is not None:
            self.quote_due = self.active or self.watched
        self.instrument = replace(self.instrument, base_price=new.base_price)

    def _accepted(self, move: Move) -> Move | None:
        """Return a move as one of the present instrument, None if it is not newer or not possible."""
        if move.adjustments != self.adjustments:
            move = adjusted_move(move, self.instrument)
        if move.version <= self.version:
            return None
        if move.price is not None and move.price < 0 and not self.instrument.signed:
            self.context.stats.invalid.report("bus", self.symbol, NEGATIVE)
            return None
        return move

    def publish(self, update: Update) -> None:
        """Move the quote, and queue the update, encoded once, for all subscribers."""
        self.publish_since(self.version, self.absorb(update))

    def publish_since(self, version: int, operations: list[Operation]) -> None:
        """Publish the change since `version`: `operations` if they are all of it, else the full quote.
        An active topic without subscribers is in its grace time: the updates are kept for clients
        that come back.
        """
        versions = self.version - version
        if not versions or not (self.active or self.watched):
            return
        if versions > 1 or not operations or self.quote_due:
            self.publish_quote(self.ts)
            return
        message = QuotesPatch(self.ts, {self.symbol: self.version}, operations)
        self.context.stats.updates_encoded += 1
        frame = UpdateFrame(text_frame(encode(message)), self)
        self.history.append(frame)
        self._publish_frame(frame, self.ts)

    def publish_quote(self, ts: int) -> None:
        """Queue the full quote, if there is a price, for all subscribers, who waited since `ts`."""
        if self.waiting:
            return
        self.quote_due = False
        self.history.clear()
        self._publish_frame(self.current_frame(), ts)

    def publish_freshness(self) -> None:
        """Tell all subscribers whether this symbol's prices are flowing."""
        self.publish_source(self.freshness)

    def publish_source(self, source: Source) -> None:
        """Tell all subscribers what `source` says now."""
        self._publish_frame(source.current_frame(), time_ns() // 1000)

    def _publish_frame(self, frame: UpdateFrame, ts: int) -> None:
        flusher = self.context.flusher
        flusher.queue(frame, self.subscribers, ts)
        flusher.queue(frame, self.everyone, ts)

    def missed_since(self, epoch: str, version: int | None) -> Sequence[UpdateFrame] | None:
        """Return the updates after `version` of `epoch`, None if a client there needs a full quote."""
        if version is None or epoch != self.epoch:
            return None
        return self.history.missed(version, self.version, trio.current_time())

    def activate(self) -> Inbox:
        """Open and return an inbox. The caller starts a task that empties it."""
        self.inbox = self.newest_inbox = Inbox(self.context.stats, self.newest_inbox)
        self.history.keep(HISTORY_UPDATES)
        return self.inbox

    def deactivate(self) -> None:
        """Close the inbox; its task publishes what is left in it and ends."""
        if self.inbox is not None:
            self.inbox.close()
            self.inbox = None
            self.history.keep(0)

    def discard_waiting(self) -> None:
        """Forget all unpublished updates, also in the inbox of a task that is about to end."""
        if self.newest_inbox is not None:
            self.newest_inbox.discard()


def full_quotes(topics: Iterable[Topic]) -> QuotesPatch:
    """Return one message with the full quotes of one or more topics; `ts` is the newest one's."""
    topics = list(topics)
    return QuotesPatch(
        max(topic.ts for topic in topics),
        {topic.symbol: topic.version for topic in topics},
        [operation for topic in topics for operation in topic.full_operations()],
        topics[0].epoch,
    )
