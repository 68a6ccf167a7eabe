"""How a quote reaches its subscribers: each update is encoded once for each view that is in use."""

from collections.abc import Sequence
from itertools import chain
from time import time_ns

import trio

from server.fanout.frame import Source, UpdateFrame, message_frame
from server.fanout.history import MAX_FRAMES, History, TopicUpdate
from server.fanout.subscriber_set import Audience
from server.fanout.topic_context import TopicContext
from server.quotes.patch import quote_pointer
from server.quotes.quote import resumed_quote
from server.quotes.snapshot import Snapshot
from server.quotes.view import JSON, QuoteChange, Removal, View


class Publication(Source):
    """The part of a topic that subscribers see. As a source it stands for the full quote.

    The hub changes `subscribers` and `everyone` (the `*` subscribers, one audience for all topics).
    `quote_due`: subscribers are to get the full quote before any update. `delisted`: the symbol is
    gone, and a full quote takes it away again.
    """

    # A slot, as a property would double the time of `Outbox.conflate`.
    key: str

    __slots__ = (
        "_current",
        "context",
        "delisted",
        "epoch",
        "everyone",
        "history",
        "instrument",
        "key",
        "pointer",
        "quote",
        "quote_due",
        "subscribers",
        "ts",
        "version",
    )

    def __init__(
        self, snapshot: Snapshot, everyone: Audience, context: TopicContext, epoch: str, ts: int
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
        self.subscribers = Audience()
        self.everyone = everyone
        self.history = History()
        self.quote_due = False
        self.delisted = False
        self._current: dict[View, UpdateFrame] | None = None

    @property
    def symbol(self) -> str:
        """The instrument's symbol."""
        return self.instrument.symbol

    @property
    def waiting(self) -> bool:
        """Whether there is neither a price nor a book yet. Then no client has the quote."""
        return self.instrument.base_price is None and self.version == 1

    @property
    def watched(self) -> bool:
        """Whether anybody would get this symbol's updates."""
        return bool(self.subscribers or self.everyone)

    def forget_frames(self) -> None:
        """Make the full quote's frames anew the next time."""
        self._current = None

    def current_frame(self, view: View) -> UpdateFrame:
        """Return the full quote as one frame, made once per version for all clients of `view`. If the
        symbol is delisted, the frame takes the quote away.
        """
        frames = self._current
        if frames is None or len(frames) >= MAX_FRAMES:
            frames = self._current = {}
        if (frame := frames.get(view)) is None:
            if self.delisted:
                payload = view.removal(Removal([self], self.ts, given=True))
            else:
                payload = view.full([self])
            frame = frames[view] = UpdateFrame(message_frame(payload, view), self)
            self.context.stats.updates_encoded += 1
        return frame

    def publish_changes(self, version: int, changes: Sequence[QuoteChange]) -> None:
        """Queue the change since `version` for all subscribers whose view shows it: an update if it is
        one change, else the full quote. Updates are kept for clients that come back.
        """
        if self.quote_due:
            self.publish_quote(self.ts)
            return
        history, fields = self.history, changes[-1].difference.fields
        update = None
        if fields and self.version == version + 1:
            update = TopicUpdate(changes[-1], self, self.context.stats)
        else:
            fields = tuple(field for change in changes for field in change.difference.fields)
        for group in chain(self.subscribers.groups, self.everyone.groups):
            view = group.view
            # Also for a view that does not show the change: the first call makes the history note
            # the fields of all later changes.
            since = history.since(view, version)
            if view.shows(fields):
                frame = update.frame(view, since) if update else self.current_frame(view)
                self.context.flusher.queue(frame, group, self.ts)
        if update:
            history.append(update)
        else:
            history.drop_updates()
            history.note(fields, self.version)

    def publish_quote(self, ts: int) -> None:
        """Queue the full quote, if there is a price, for all subscribers, who waited since `ts`."""
        if not self.waiting:
            self.quote_due = False
            self.history.clear()
            self.publish_source(self, ts)

    def publish_source(self, source: Source, ts: int | None = None) -> None:
        """Tell all subscribers what `source` says now. They waited since `ts`, by default now."""
        ts = time_ns() // 1000 if ts is None else ts
        for audience in (self.subscribers, self.everyone):
            self.context.flusher.send(source, audience, ts)

    def missed_since(
        self, epoch: str, version: int | None, view: View = JSON
    ) -> Sequence[UpdateFrame] | None:
        """Return the view's updates after `version` of `epoch`. Return None if a client that has this
        version needs a full quote.
        """
        if version is None or epoch != self.epoch:
            return None
        return self.history.missed(view, version, self.version, trio.current_time())
