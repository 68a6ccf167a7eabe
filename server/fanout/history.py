"""One symbol's last updates, for clients that come back, and the versions that they may build on."""

from collections import deque
from collections.abc import Iterable, Sequence
from math import inf
from typing import Protocol

from server.fanout.frame import Source, UpdateFrame, message_frame, payload_of
from server.fanout.stats import FanoutStats
from server.quotes.view import JSON, QuoteChange, Shown, View, read_change

HISTORY_UPDATES = 32
"""Updates kept of an active symbol, 33 KB: two minutes of a price that moves every four seconds. A
client that was away for longer is better served with one full quote.
"""

SETTLING_TIME = 30.0
"""Seconds until every instance has heard of new reference data: each looks every two seconds."""


MAX_FRAMES = 51
"""Frames kept of one update: those of three forms, each with all fields or one of 16 selections. Views
that are not in use any more make room for others.
"""


class ShownSource(Source, Shown, Protocol):
    """A topic, as its updates need it."""


class TopicUpdate:
    """One change of `topic`, and its frames: one for each view that needed it.

    `fields`: those that it changed. The frame of the view JSON has all that other views need. So that
    frame is kept in place of the values, which would take 370 bytes.
    """

    __slots__ = ("_change", "_frames", "_stats", "_topic", "fields", "version")

    def __init__(self, change: QuoteChange, topic: ShownSource, stats: FanoutStats) -> None:
        self.version = change.version
        self.fields = change.difference.fields
        self._change: QuoteChange | None = change
        self._topic = topic
        self._stats = stats
        # Pairs, as a dict would take 200 bytes for the one view that most updates have.
        self._frames: tuple[tuple[View, UpdateFrame], ...] = ()

    def frame(self, view: View, since: int) -> UpdateFrame:
        """Return the frame for clients of `view`, which shows this change. It is made once.

        `since`: the version of the update before this one in the view's selection.
        """
        known = self._known(view)
        if known is not None:
            return known
        change = self._change or self._read()
        self._stats.updates_encoded += 1
        frame = UpdateFrame(message_frame(view.change(change, since), view), self._topic)
        frames = self._frames
        if len(frames) == MAX_FRAMES:
            # Without the frame of JSON, the values would be lost.
            frames = tuple(each for each in frames if each[0] is JSON)
        self._frames = (*frames, (view, frame))
        return frame

    def drop_values(self) -> None:
        """Keep the frame of JSON in place of the values, if there is one."""
        if self._known(JSON) is not None:
            self._change = None

    def _known(self, view: View) -> UpdateFrame | None:
        for known, frame in self._frames:
            if known is view:
                return frame
        return None

    def _read(self) -> QuoteChange:
        frame = self._known(JSON)
        assert frame is not None, "values are dropped only if there is this frame"
        return read_change(payload_of(frame), self._topic, self.version)


class History:
    """Owned by its topic.

    The updates lead without a gap to the symbol's present version. Only a version above
    `_relisted_at` proves that a client has the newest reference data. Until `_settles_at`, in
    trio's time, no version does.

    `_last` has the version of each field's last change. It is None until a selection needs it. A
    field that it does not have has not changed since `_floor`. Every client with a selection has the
    version `_floor` or a newer one.
    """

    __slots__ = ("_floor", "_last", "_relisted_at", "_settles_at", "_updates")

    def __init__(self) -> None:
        self._relisted_at = 0.0
        self._settles_at = inf
        self._updates: deque[TopicUpdate] | None = None
        self._last: dict[str, int] | None = None
        self._floor = 0

    def start(self) -> None:
        """Keep updates from now on; harmless if they are kept already."""
        if self._updates is None:
            self._updates = deque(maxlen=HISTORY_UPDATES)

    def stop(self) -> None:
        """Keep no updates: nobody watches the symbol."""
        self._updates = self._last = None

    def append(self, update: TopicUpdate) -> None:
        """Keep the update that made the present version."""
        if self._updates is not None:
            update.drop_values()
            self._updates.append(update)
        self.note(update.fields, update.version)

    def note(self, fields: Iterable[str], version: int) -> None:
        """Note that `version` changed `fields`, for selections."""
        if self._last is not None:
            self._last |= dict.fromkeys(fields, version)

    def since(self, view: View, version: int) -> int:
        """Return the version of the last update of the view's selection; 0 without a selection.

        Every client of this view has that version or a newer one. `version` is the present one.
        """
        if view.fields is None:
            return 0
        if self._last is None:
            self._floor, self._last = version, {}
            if self._updates:
                self._floor = self._updates[0].version - 1
                for update in self._updates:
                    self.note(update.fields, update.version)
        last = self._last
        return max(self._floor, *[last.get(field, 0) for field in view.fields])

    def drop_updates(self) -> None:
        """Forget the updates, as they do not lead to the present version."""
        if self._updates is not None:
            self._updates.clear()

    def clear(self) -> None:
        """Forget all, as every client gets the full quote."""
        self.drop_updates()
        self._last = None

    def on_relisted(self, now: float) -> None:
        """Trust no version until every instance has heard of the new reference data."""
        self._relisted_at = inf
        self._settles_at = now + SETTLING_TIME
        self.clear()

    def on_epoch(self) -> None:
        """Count versions anew. One of the new epoch proves that a client has the reference data."""
        if self._relisted_at != inf:
            self._relisted_at = 0.0
        self.clear()

    def settle(self, version: int, now: float) -> None:
        """If the settling time is over, trust versions after `version` again."""
        if self._settles_at <= now:
            self._relisted_at, self._settles_at = version, inf

    def missed(
        self, view: View, held: int, version: int, now: float
    ) -> Sequence[UpdateFrame] | None:
        """Return the view's updates after `held` up to the present `version`, oldest first. Return
        None if a client that has `held` needs a full quote.
        """
        self.settle(version, now)
        if not self._relisted_at < held <= version:
            return None
        missed = version - held
        if not missed:
            return []
        if self._updates is None or len(self._updates) < missed:
            return None
        return self._frames(view, len(self._updates) - missed)

    def _frames(self, view: View, start: int) -> list[UpdateFrame]:
        """Return the view's frames of the updates from place `start` on."""
        assert self._updates is not None, "the caller has looked"
        frames = []
        since = self._updates[0].version - 1
        for place, update in enumerate(self._updates):
            if view.shows(update.fields):
                if place >= start:
                    frames.append(update.frame(view, since))
                since = update.version
        return frames
