"""The bars of one symbol and length that clients watch: each is encoded once for all of them."""

from datetime import UTC, tzinfo
from typing import NamedTuple

from msgspec import to_builtins

from server.fanout.frame import Source, UpdateFrame, message_frame
from server.fanout.subscriber_set import Audience
from server.history.bar import MinuteBar, bar_of
from server.history.messages import BarMessage, BarsEnd, BarsMissed
from server.history.minutes import Minutes
from server.history.timeframe import joined_all, period_end, period_start
from server.quotes.traded import Timeframe
from server.quotes.view import View

OWED_BARS = 60
"""Bars of a symbol that a slow client is owed. If one more comes, it is told that it missed some."""


class BarSource(Source):
    """One bar. In place of the states that a slow client missed, it gets the newest."""

    __slots__ = ("_frames", "_message")

    def __init__(self, message: BarMessage | BarsEnd | BarsMissed) -> None:
        self._message = message
        self._frames: dict[View, UpdateFrame] = {}

    def renew(self, message: BarMessage | BarsEnd | BarsMissed) -> bool:
        """Take over the newest state. Return whether it is news."""
        before, self._message = self._message, message
        self._frames = {}
        return message != before

    def current_frame(self, view: View) -> UpdateFrame:
        frame = self._frames.get(view)
        if frame is None:
            # A view knows no types of the history.
            payload = view.encode(to_builtins(self._message))
            frame = self._frames[view] = UpdateFrame(message_frame(payload, view), self)
        return frame


class EndSource(BarSource):
    """The newest `bars_end` of one length. It comes behind all bars."""

    trails = True


class Base(NamedTuple):
    """A period's minutes before `end` that may not be in memory any more, as one bar; None without a
    trade.
    """

    period: int
    end: int
    bar: MinuteBar | None


class BarTopic:
    """The bars of `symbol`. `unfinished`: periods with a bar that is not final. `loading`: periods of
    which the store is asked. `outdated`: those of them with a revision since then. `awaited`: periods
    of which clients have no bar yet, as it waits for the store. `over`: the symbol was delisted. Days
    and weeks begin in `zone`.
    """

    def __init__(
        self, symbol: str, timeframe: Timeframe, minutes: Minutes, zone: tzinfo = UTC
    ) -> None:
        self.symbol = symbol
        self.timeframe: Timeframe = timeframe
        self.subscribers = Audience()
        self.unfinished: set[int] = set()
        self.loading: set[int] = set()
        self.outdated: set[int] = set()
        self.awaited: set[int] = set()
        self.over = False
        self._minutes = minutes
        self._zone = zone
        self._base = Base(0, 0, None)
        self._sources: dict[int, BarSource] = {}
        self._missed = BarSource(BarsMissed(symbol, timeframe))

    @property
    def sources(self) -> list[Source]:
        """All that a client may be owed."""
        return [self._missed, *self._sources.values()]

    def has_sent(self, period: int) -> bool:
        """Return whether clients may have a bar, though not its newest state."""
        return period in self._sources

    @property
    def newest(self) -> BarSource | None:
        """The newest bar, None before the first."""
        return self._sources[max(self._sources)] if self._sources else None

    def period(self, minute: int) -> int:
        """Return the first minute of the bar that has `minute`."""
        return period_start(minute, self.timeframe, self._zone)

    def end(self, period: int) -> int:
        """Return the first minute after a period."""
        return period_end(period, self.timeframe, self._zone)

    def knows(self, period: int) -> bool:
        """Whether all minutes of a bar are here, those in memory and the base."""
        if period >= self._minutes.whole_from:
            return True
        if self._base.period == period:
            return self._base.end >= min(self.stored_to, self.end(period))
        return self._is_minute(period)

    @property
    def stored_to(self) -> int:
        """The first minute whose trades are all here. Open minutes are, also that of a start."""
        return min(self._minutes.whole_from, self._minutes.closed_to)

    def awaits(self, ended: int) -> bool:
        """Return whether a bar that began at the minute `ended`, or before, waits for the store."""
        self.awaited = {each for each in self.awaited if self._waits(each)}
        return any(each <= ended for each in self.awaited)

    def _waits(self, period: int) -> bool:
        is_missing = self._minutes.is_missing
        return period in self.loading or is_missing(self.symbol, period, self.end(period))

    def _is_minute(self, period: int) -> bool:
        """Return whether a bar is one minute that is in memory. The base may be older then."""
        return self.timeframe == "1m" and self._minutes.bar(self.symbol, period) is not None

    def bar(self, period: int) -> MinuteBar | None:
        """Return a bar that is known, as it is now, None without a trade."""
        base, start = self._base, period
        parts = list[MinuteBar]()
        if base.period == period and not self._is_minute(period):
            # A minute that is in memory again counts once the store was asked.
            parts += [base.bar] if base.bar else []
            start = base.end
        parts += self._minutes.recent([self.symbol], start, self.end(period))
        return joined_all(parts, period, final=self.end(period) <= self._minutes.closed_to)

    def source(self, bar: MinuteBar, price_decimals: int) -> BarSource | None:
        """Return the source of a bar with its newest state, None if that is not news."""
        message = BarMessage(self.symbol, self.timeframe, bar_of(bar, price_decimals))
        source = self._sources.get(bar.minute)
        if source is not None:
            return source if source.renew(message) else None
        source = self._sources[bar.minute] = BarSource(message)
        if len(self._sources) > OWED_BARS:
            oldest = min(each for each in self._sources if each != bar.minute)
            self._drop(self._sources.pop(oldest))
        return source

    def _drop(self, oldest: BarSource) -> None:
        """Tell clients that have not got the oldest bar yet that they missed it."""
        for outbox in self.subscribers:
            if outbox.queue is None and outbox.is_pending(oldest):
                outbox.forget([oldest])
                outbox.conflate(self._missed)

    def fold(self, oldest: int) -> None:
        """Keep what minutes before `oldest` make: they may leave the memory now."""
        if self.timeframe == "1m":
            return
        base, period = self._base, self.period(oldest)
        if not self.knows(period):
            return
        if base.period != period:
            base = Base(period, period, None)
        parts = [base.bar] if base.bar else []
        parts += self._minutes.recent([self.symbol], base.end, oldest)
        self._base = Base(period, max(base.end, oldest), joined_all(parts, period))

    def in_memory(self, start: int, end: int) -> list[int]:
        """Return the minutes from `start` to before `end` that have a bar in memory."""
        return [bar.minute for bar in self._minutes.recent([self.symbol], start, end)]

    def restore(self, period: int, end: int, stored: MinuteBar | None) -> None:
        """Take over the store's bar of a period. With the minutes in memory it is whole up to `end`."""
        end = max(period, min(end, self.end(period)))
        parts = [stored] if stored else []
        parts += self._minutes.recent([self.symbol], period, end)
        self._base = Base(period, end, joined_all(parts, period))

    def begin_anew(self) -> None:
        """Ask the store anew, as another instrument has the symbol now."""
        self._base = Base(0, 0, None)
        self.outdated |= self.loading

    def is_stale(self, minute: int) -> bool:
        """Return whether the base has an older state of a minute that is in memory again."""
        return not self._is_minute(minute) and self._base.period <= minute < self._base.end

    def rename(self, symbol: str) -> None:
        """Go on under a new symbol."""
        self.symbol = symbol
        self._missed.renew(BarsMissed(symbol, self.timeframe))
