"""One symbol: its quote, the quote's version, and who watches it.

A topic always exists; it is *active*, with a channel and a task of its own, while somebody watches.
An inactive one only keeps its quote up to date: nothing is encoded that nobody would read.
"""

from collections.abc import Iterable, Sequence
from math import inf
from time import time_ns
from typing import NamedTuple

import msgspec
import trio

from server.fanout.farewell import Farewell
from server.fanout.flusher import Flusher
from server.fanout.frame import UpdateFrame, text_frame
from server.fanout.inbox import Inbox
from server.fanout.journal import Journal
from server.fanout.ring import Ring
from server.fanout.shift import Shift
from server.fanout.stats import FanoutStats
from server.fanout.status import TopicStatus
from server.fanout.subscriber_set import SubscriberSet
from server.quotes.instrument import LARGEST_WHOLE, Instrument
from server.quotes.messages import QuotesPatch, encode
from server.quotes.patch import Add, Operation, Remove, difference, quote_pointer
from server.quotes.quote import (
    Move,
    Update,
    opening_quote,
    quote_after,
    resumed_quote,
    to_microseconds,
)
from server.quotes.snapshot import LiveSnapshot, Snapshot, live, opening_snapshot

SETTLING_TIME = 30.0
"""Seconds until every instance has heard of new reference data: each looks every two seconds."""

NO_VERSION_LEFT = (
    "the version is the largest there is, so the quote cannot move: correct the stored one"
)
"""What the log says of a symbol that stands still."""

UNREACHED = 2**63
"""A version above all there are."""


class TopicContext(NamedTuple):
    """What all topics write in: counts, and for other instances their moves."""

    stats: FanoutStats
    journal: Journal


class Topic:
    """Owned by the hub. `subscribers` and `everyone` (shared by all topics) are the hub's to change.

    `quote_due`: those who watch are to get the full quote before any update. `delisted`: gone.
    """

    __slots__ = (
        "_current",
        "_journal",
        "_newest_inbox",
        "_relisted_at",
        "_ring",
        "_settles_at",
        "delisted",
        "epoch",
        "everyone",
        "farewell",
        "finished",
        "freshness",
        "idle_since",
        "inbox",
        "instrument",
        "moved_at",
        "pointer",
        "quote",
        "quote_due",
        "stats",
        "subscribers",
        "ts",
        "version",
    )

    def __init__(
        self,
        instrument: Instrument,
        everyone: SubscriberSet,
        context: TopicContext,
        epoch: str,
        ts: int,
        time_us: int,
    ) -> None:
        """`ts` is the opening quote's moment on this server, `time_us` that of its price."""
        self.instrument = instrument
        self.pointer = quote_pointer(instrument.symbol)
        self.quote = opening_quote(instrument, time_us)
        self.epoch = epoch
        self.version = 1
        self.ts = ts
        self.subscribers = SubscriberSet()
        self.everyone = everyone
        self.inbox: Inbox | None = None
        self.finished = trio.Event()
        self.finished.set()
        self.idle_since = 0.0
        self.freshness = TopicStatus(instrument.symbol)
        self.moved_at = 0.0
        self.stats, self._journal = context
        self._newest_inbox: Inbox | None = None
        self._current: UpdateFrame | None = None
        self._ring: Ring | None = None
        self._relisted_at = 0
        self._settles_at = inf
        self.quote_due = False
        self.delisted = False
        self.farewell = Farewell(self)

    @property
    def symbol(self) -> str:
        """The instrument's symbol."""
        return self.instrument.symbol

    def resume(self, snapshot: Snapshot) -> None:
        """Go on from the last price before a restart."""
        if snapshot.version > self.version:
            self.quote = resumed_quote(snapshot)
            self.version = snapshot.version

    def adopt(self, snapshot: LiveSnapshot) -> None:
        """Be as another instance is, also where its version is lower; reference data are the
        catalogue's, and may have changed since that one told.
        """
        if snapshot.version > 1:
            self.quote = resumed_quote(self._repriced(snapshot))
        else:
            self.quote = opening_quote(self.instrument, snapshot.ts)
        self.version = snapshot.version
        self.ts = snapshot.ts
        self.moved_at = trio.current_time()
        self._current = None
        self._forget_updates()

    def live_snapshot(self) -> LiveSnapshot:
        """What other instances are told of the symbol."""
        return live(self.snapshot(), self.ts)

    def begin_epoch(self, epoch: str) -> None:
        """The version is one of `epoch` from now on; a full quote is due to all who watch."""
        if epoch != self.epoch and self._relisted_at != UNREACHED:
            self._relisted_at = 0
        self.epoch = epoch
        self._current = None
        self._forget_updates()
        self.quote_due = self.watched

    def _repriced(self, snapshot: Snapshot) -> Snapshot:
        """`snapshot` with this instrument's reference data."""
        return msgspec.structs.replace(
            opening_snapshot(self.instrument),
            last_quote=snapshot.last_quote,
            volume=snapshot.volume,
            version=snapshot.version,
            quoted_at=snapshot.quoted_at,
        )

    def relist(self, instrument: Instrument) -> None:
        """Take over new reference data, if it is new; a full quote is due to all who watch, and to all
        who come back with this version or an earlier one. So it is to all who come back within
        SETTLING_TIME: they may come from an instance that had not heard of it.

        The version stays, as it counts prices: on all instances alike, in whatever order they hear
        of this.
        """
        if instrument == self.instrument:
            return
        self.instrument = instrument
        if self.version == 1:
            self.quote = opening_quote(instrument, to_microseconds(self.quote.last_updated))
        else:
            self.quote = resumed_quote(self.snapshot())
        self._current = None
        self._forget_updates()
        self._relisted_at = UNREACHED
        self._settles_at = trio.current_time() + SETTLING_TIME
        self.quote_due = self.watched
        if self._journal.recording:  # those who come later learn of the symbol from what is told
            self._journal.lose([self.symbol])

    def delist(self, flusher: Flusher) -> None:
        """Take the quote away from everybody who watches. Whoever is still owed it, and whoever comes
        too late to know better, gets it and loses it in one message. For subscribers that is final: if
        it is listed again before they read, they are subscribed no more.
        """
        self.delisted = True
        self._current = None
        now = time_ns() // 1000
        if self.quote_due:  # not everybody has it
            frame = self.current_frame()
        else:
            removal = QuotesPatch(now, {self.symbol: self.version}, [Remove(self.pointer)])
            frame = UpdateFrame(text_frame(encode(removal)), self)
        flusher.queue(UpdateFrame(frame, self.farewell), self.subscribers, now)
        flusher.queue(frame, self.everyone, now)
        for outbox in self.subscribers:
            outbox.on_delisted(self)
            outbox.flush_pending(self.farewell)
        for outbox in self.everyone:
            outbox.flush_pending(self)
        self.subscribers, self.everyone = SubscriberSet(), SubscriberSet()
        self.quote_due = False
        self.deactivate()

    def revive(self, instrument: Instrument, everyone: SubscriberSet, epoch: str) -> None:
        """Go on, listed again, from the last price and version."""
        self.delisted = False
        self.everyone = everyone
        for outbox in everyone:  # who subscribed to it alone before will have it again
            outbox.cancel(self.farewell)
        self.relist(instrument)
        self.begin_epoch(epoch)

    def snapshot(self) -> Snapshot:
        """What is to be kept of the symbol."""
        quote, opening = self.quote, opening_snapshot(self.instrument)
        if self.version == 1:
            return opening
        return msgspec.structs.replace(
            opening,
            last_quote=quote.current_price,
            volume=quote.volume,
            version=self.version,
            quoted_at=to_microseconds(quote.last_updated),
        )

    @property
    def active(self) -> bool:
        """Whether trades go through the inbox to the topic's task."""
        return self.inbox is not None

    @property
    def watched(self) -> bool:
        """Whether anybody would get this symbol's updates."""
        return bool(self.subscribers or self.everyone)

    def full_operations(self) -> list[Operation]:
        """The patch operations that give the full quote, and take one away that is delisted."""
        add = Add(self.pointer, self.quote)
        return [add, Remove(self.pointer)] if self.delisted else [add]

    def current_frame(self) -> UpdateFrame:
        """The full quote as one frame, made once per version whoever asks."""
        if self._current is None:
            self._current = UpdateFrame(text_frame(encode(full_quotes([self]))), self)
            self.stats.updates_encoded += 1
        return self._current

    def absorb(self, update: Update) -> list[Operation]:
        """Move the quote by `update`; the operations that say so, none if it changed nothing.

        A trade that changes anything makes one more version; a move has its own, and is left out
        if that is not newer. After version LARGEST_WHOLE, which only a foreign value can be near, there
        is none: the quote stays as it is, and its watchers are told that the symbol is quiet.
        """
        old = self.quote
        if isinstance(update, Move):
            if update.version <= self.version:
                return []
            version, trade = update.version, update.trade_after(old)
        elif self.version < LARGEST_WHOLE:
            version, trade = self.version + 1, update
        else:
            self.stats.invalid.report("versions", self.symbol, NO_VERSION_LEFT)
            return []
        new = quote_after(old, trade, self.instrument.price_decimals)
        operations: list[Operation] = [*difference(old, new, self.pointer)]
        if operations or trade is not update:
            self.moved_at = trio.current_time()
            self._settle(self.moved_at)
            self.quote = new
            self.version = version
            self.ts = trade.ts
            self._current = None
            if self._journal.recording:
                self._journal.record(
                    Move(
                        trade.symbol,
                        version,
                        new.current_price,
                        new.volume,
                        trade.time_us,
                        trade.ts,
                    )
                )
        return operations

    def publish(self, update: Update, flusher: Flusher) -> None:
        """Move the quote and queue the update, encoded once, for everybody who watches. In the grace
        time nobody does, but somebody may be about to come back.
        """
        version = self.version
        operations = self.absorb(update)
        self.publish_since(version, operations, flusher)

    def publish_quote(self, flusher: Flusher, ts: int) -> None:
        """Queue the full quote for everybody who watches; `ts`: since when they wait for it."""
        self.quote_due = False
        self._forget_updates()
        self._publish_frame(self.current_frame(), flusher, ts)

    def publish_since(self, version: int, operations: list[Operation], flusher: Flusher) -> None:
        """Publish what became of `version`: `operations` if they are all of it, else the full quote."""
        versions = self.version - version
        if versions and (self.active or self.watched):
            if versions == 1 and operations:
                self._publish_update(operations, flusher)
            else:
                self.publish_quote(flusher, self.ts)

    def publish_freshness(self, flusher: Flusher) -> None:
        """Tell everybody who watches whether this symbol's prices are flowing."""
        self._publish_frame(self.freshness.current_frame(), flusher, time_ns() // 1000)

    def _publish_update(self, operations: list[Operation], flusher: Flusher) -> None:
        """Queue the last change of the quote."""
        if self.quote_due:
            self.publish_quote(flusher, self.ts)
            return
        message = QuotesPatch(self.ts, {self.symbol: self.version}, operations)
        self.stats.updates_encoded += 1
        frame = UpdateFrame(text_frame(encode(message)), self)
        if self._ring is not None:
            self._ring.append(frame)
        self._publish_frame(frame, flusher, self.ts)

    def _publish_frame(self, frame: UpdateFrame, flusher: Flusher, ts: int) -> None:
        flusher.queue(frame, self.subscribers, ts)
        flusher.queue(frame, self.everyone, ts)

    def missed_since(self, epoch: str, version: int | None) -> Sequence[UpdateFrame] | None:
        """The updates after `version` of `epoch`; None if only a full quote tells what came since."""
        if version is None or epoch != self.epoch:
            return None
        self._settle(trio.current_time())
        if version > self.version or version <= self._relisted_at:
            return None
        missed = self.version - version
        if not missed:
            return []
        return self._ring.newest(missed) if self._ring is not None else None

    def _settle(self, now: float) -> None:
        """If it is time, let later versions than this prove that a client has the reference data."""
        if self._settles_at <= now:
            self._relisted_at, self._settles_at = self.version, inf

    def _forget_updates(self) -> None:
        """What is kept leads without a gap to the present version, or is not kept."""
        if self._ring is not None:
            self._ring.clear()

    def activate(self) -> Shift:
        """Open the inbox; whoever calls this starts `run_shift` with what is returned."""
        self._ring = Ring()
        self.inbox = self._newest_inbox = Inbox(self.stats)
        before, self.finished = self.finished, trio.Event()
        return Shift(self.inbox, before, self.finished)

    def deactivate(self) -> None:
        """Close the inbox: `run_shift` publishes what is left in it and ends."""
        if self.inbox is not None:
            self.inbox.close()
            self.inbox = None
            self._ring = None

    @property
    def waiting(self) -> bool:
        """Whether any trade has come in that is not published yet."""
        return self.inbox is not None and self.inbox.waiting

    def discard_waiting(self) -> None:
        """Forget what has come in and is not published yet, also what a task that ends has left."""
        if self._newest_inbox is not None:
            self._newest_inbox.discard()


def full_quotes(topics: Iterable[Topic]) -> QuotesPatch:
    """One message with the full quotes of one or more topics; `ts` is the newest one's."""
    topics = list(topics)
    return QuotesPatch(
        max(topic.ts for topic in topics),
        {topic.symbol: topic.version for topic in topics},
        [operation for topic in topics for operation in topic.full_operations()],
        topics[0].epoch,
    )
