"""One symbol: its quote and the quote's version. Its base class has the subscribers.

A topic always exists. While somebody watches it, it is *active*: it has an inbox and a task. An
inactive topic only keeps its quote up to date, and encodes nothing.
"""

from collections.abc import Sequence
from time import time_ns

import trio
from msgspec.structs import replace

from server.fanout.inbox import Inbox
from server.fanout.publication import Publication
from server.fanout.status import TopicStatus
from server.fanout.subscriber_set import Audience
from server.fanout.topic_context import TopicContext
from server.quotes.adjustment import (
    adjusted_change,
    adjusted_move,
    begins_anew,
    begun_us,
    in_session_of,
    newest_reference,
    up_to_date,
)
from server.quotes.instrument import LARGEST_WHOLE
from server.quotes.opening import begun_once, opened, opening_of
from server.quotes.patch import difference
from server.quotes.quote import Quote, move_of, quote_after, resumed_quote, snapshot_of
from server.quotes.snapshot import LiveSnapshot, Snapshot, live, row_of
from server.quotes.traded import MINUTE_US
from server.quotes.update import Move, Trade, Update, changes_bar
from server.quotes.view import QuoteChange

NO_VERSION_LEFT = (
    "the version is the largest there is, so the quote cannot move: correct the stored one"
)
"""The log's words for a symbol that cannot move any more."""

NEGATIVE = "a move to a negative price, which an instrument of this type cannot have"
"""The log's words for such a move."""


class Topic(Publication):
    """Owned by the hub.

    `row`: the last trade's, as in `Trade`. `adjustments`: the number of adjustments that its prices
    have had. `adjusted_at`: the moments of those made here. `successor`: the topic of the new symbol,
    if it was renamed. `newest_inbox`: the last one, also if it is closed.
    """

    __slots__ = (
        "adjusted_at",
        "adjustments",
        "freshness",
        "idle_since",
        "inbox",
        "moved_at",
        "newest_inbox",
        "row",
        "successor",
    )

    def __init__(
        self, snapshot: Snapshot, everyone: Audience, context: TopicContext, epoch: str, ts: int
    ) -> None:
        super().__init__(snapshot, everyone, context, epoch, ts)
        self.row = row_of(snapshot)
        self.inbox: Inbox | None = None
        self.idle_since = 0.0
        self.freshness = TopicStatus(snapshot.symbol)
        self.moved_at = 0.0
        self.adjustments = len(snapshot.adjustments.split())
        self.adjusted_at: tuple[int, ...] = ()
        self.successor: Topic | None = None
        self.newest_inbox: Inbox | None = None

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
        self.context.bars.minutes.adopt(self.symbol, snapshot.minutes)
        # The trades between both versions did not come here.
        self.context.trades.drop([self.symbol])
        self.forget_frames()
        self.history.clear()

    def begin_epoch(self, epoch: str) -> None:
        """Count the version as one of `epoch`; the full quote is due to all subscribers."""
        if epoch != self.epoch:
            self.history.on_epoch()
        else:
            self.history.clear()
        self.epoch = epoch
        self.forget_frames()
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
            if begins_anew(self.instrument, instrument):
                begun = begun_us(instrument.adjustments) // MINUTE_US
                self.context.bars.begin_anew(self.symbol, begun)
        state = up_to_date(self.snapshot(), instrument)
        self.instrument = instrument
        self.quote = resumed_quote(state if self.version > 1 else snapshot)
        self.version = state.version
        if self.quote.current_price != old.current_price:
            self.ts = time_ns() // 1000
        self.forget_frames()
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
        """Take the place of `old`, whose symbol was renamed, also for the updates that wait there."""
        old.successor = self
        self.row = max(self.row, old.row)
        count, self.adjustments = self.adjustments, old.adjustments
        self.adjusted_at = old.adjusted_at
        self.moved_at = max(self.moved_at, old.moved_at)
        self._count_adjustments(count)
        if self.inbox is None:
            self.idle_since = old.idle_since

    def revive(self, snapshot: Snapshot, everyone: Audience, epoch: str) -> None:
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
        minutes = self.context.bars.minutes.state_of(self.symbol)
        return live(self.snapshot(), self.ts, self.row, minutes)

    def absorb(self, update: Update) -> QuoteChange | None:
        """Move the quote by `update` and return the change; None if nothing changed.

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
                return None
            update, version = accepted, accepted.version
        elif self.version < LARGEST_WHOLE:
            moments = self.adjusted_at
            if moments and update.ts < moments[-1]:
                behind = sum(update.ts < moment for moment in moments)
                update = adjusted_change(update.change, instrument, behind)
            version = self.version + 1
        else:
            self.context.stats.invalid.report("versions", self.symbol, NO_VERSION_LEFT)
            return None
        new = quote_after(old, update, instrument.price_decimals, instrument.size_decimals)
        if old.base_price is None:
            self._begin(new)
        if not traded and (opening := opening_of(update)):
            self.instrument = opened(self.instrument, opening, new)
        changed = difference(old, new, traded=traded)
        revises = not traded and changes_bar(update)
        if not (changed.fields or isinstance(update, Move) or revises):
            return None
        self.moved_at = trio.current_time()
        self.history.settle(self.version, self.moved_at)
        self.quote = new
        self.version = version
        self.ts = update.ts
        self.row = update.row
        self.forget_frames()
        self.context.bars.minutes.absorb(instrument, update, new.current_price)
        decimals = instrument.price_decimals
        self.context.trades.absorb(self.symbol, version, update, new.current_price, decimals)
        if self.context.journal.recording:
            self.context.journal.record(move_of(update, version, new, self.adjustments))
        return QuoteChange(self.symbol, self.pointer, version, self.ts, changed)

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
        """Move the quote, and queue the update, encoded once for each view, for all subscribers."""
        version, change = self.version, self.absorb(update)
        if change:
            self.publish_since(version, [change])

    def publish_since(self, version: int, changes: Sequence[QuoteChange]) -> None:
        """Publish `changes`, which came after `version`. An active topic without subscribers is in its
        grace time, and keeps updates for clients that come back.
        """
        if changes and (self.active or self.watched):
            self.publish_changes(version, changes)

    def activate(self, former: Inbox | None = None) -> Inbox:
        """Open and return an inbox. The caller starts a task that empties it, behind the updates of a
        topic that this one took the place of.
        """
        self.inbox = self.newest_inbox = Inbox(self.context.stats, self.newest_inbox, former)
        self.history.start()
        return self.inbox

    def deactivate(self) -> None:
        """Close the inbox; its task publishes what is left in it and ends."""
        if self.inbox is not None:
            self.inbox.close()
            self.inbox = None
            self.history.stop()

    def discard_waiting(self) -> None:
        """Forget all unpublished updates, also in the inbox of a task that is about to end."""
        if self.newest_inbox is not None:
            self.newest_inbox.discard()
