"""Bars for clients: ends minutes by the clock, and sends the bars that clients watch.

The hub's topics give the trades to `minutes`. Once a second the feed of bars looks at them. It first
closes minutes that are over, and sends their final bars with `bars_end` behind them. Then it sends
final bars that were revised, and the newest state of open ones. So a bar is encoded at most once a
second, for all its subscribers. If a final bar waits for the store, so does the `bars_end` of the
clients that watch it.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, tzinfo
from time import time_ns

import structlog
import trio

from server.fanout.bar_topic import BarTopic, EndSource
from server.fanout.flusher import Flusher
from server.fanout.outbox import Outbox
from server.fanout.subscriber_set import Audience
from server.history.bar import MinuteBar
from server.history.messages import BarsEnd, minute_time
from server.history.minutes import GRACE_US, Minutes, closed_at
from server.history.timeframe import period_end, period_start
from server.quotes.adjustment import begun_us
from server.quotes.instrument import Instrument
from server.quotes.traded import LAST_MINUTE, MINUTE_US, Closing, Timeframe

TICK = 1.0
"""Seconds between two states of an open bar."""


log = structlog.get_logger()


class BarsUnavailable(Exception):
    """The store gives no answer now."""


Load = Callable[[str, int, int, Sequence[int]], Awaitable[MinuteBar | None]]
"""Joins a symbol's stored minutes into one bar: those from the first to before the end, but not the
given ones. Returns None if they have no trade. Errors: BarsUnavailable.
"""


class _Watched:
    """The connections that watch bars of one length, each with the number of symbols it watches.

    `end`: the newest `bars_end`, of the bars that began at the minute `ended`. `held`: the connections
    that get it later, as one of their bars waits for the store.
    """

    def __init__(self) -> None:
        self.outboxes = Audience()
        self.counts = Counter[Outbox]()
        self.end: EndSource | None = None
        self.ended = 0
        self.held: set[Outbox] = set()

    def add(self, outbox: Outbox) -> None:
        self.counts[outbox] += 1
        self.outboxes.add(outbox)

    def discard(self, outbox: Outbox) -> None:
        self.counts[outbox] -= 1
        if not self.counts[outbox]:
            del self.counts[outbox]
            self.outboxes.discard(outbox)
            self.held.discard(outbox)
            if self.end:
                outbox.forget([self.end])


class Bars:
    """Owned by the hub. `cut` returns the events that are set once all present updates are published.

    `load` asks the store; without it, bars have only what is in memory. `own_clock`: this instance ends
    minutes itself. `replaying`: the trades' times are the clock, until the feed has `ended`. Days and
    weeks begin in `zone`, as in `GET /bars`.
    """

    def __init__(
        self,
        flusher: Flusher,
        instrument: Callable[[str], Instrument],
        cut: Callable[[], list[trio.Event]],
    ) -> None:
        self.minutes = Minutes()
        self.load: Load | None = None
        self.own_clock = True
        self.replaying = self.ended = False
        self.zone: tzinfo = UTC
        self.now_us: Callable[[], int] = lambda: time_ns() // 1000
        self._flusher = flusher
        self._instrument = instrument
        self._cut = cut
        self._topics: dict[str, list[BarTopic]] = {}
        self._watched: dict[Timeframe, _Watched] = {}
        self._subscribed: dict[Outbox, dict[BarTopic, None]] = {}
        self._jobs: trio.Nursery

    def __contains__(self, symbol: str) -> bool:
        """Whether anybody watches bars of a symbol."""
        return symbol in self._topics

    def topic(self, symbol: str, timeframe: Timeframe) -> BarTopic:
        """Return the bars of a symbol and length, for a subscription to them."""
        for topic in self._topics.get(symbol, ()):
            if topic.timeframe == timeframe:
                return topic
        return BarTopic(symbol, timeframe, self.minutes, self.zone)

    def subscribe(self, outbox: Outbox, topics: Iterable[BarTopic]) -> None:
        """Send bars: the present ones now, then each change."""
        for topic in topics:
            mine = self._subscribed.setdefault(outbox, {})
            if topic in mine or topic.over:
                continue
            mine[topic] = None
            if not topic.subscribers:
                self._topics.setdefault(topic.symbol, []).append(topic)
                self._begin(topic)
            topic.subscribers.add(outbox)
            self._watched.setdefault(topic.timeframe, _Watched()).add(outbox)
            if source := topic.newest:
                outbox.send_current(source)

    def unsubscribe(self, outbox: Outbox, topics: Iterable[BarTopic]) -> None:
        """Send no more of these bars."""
        mine = self._subscribed.get(outbox, {})
        for topic in topics:
            if topic not in mine:
                continue
            del mine[topic]
            topic.subscribers.discard(outbox)
            outbox.forget(topic.sources)
            self._watched[topic.timeframe].discard(outbox)
            if not topic.subscribers:
                self._forget(topic)
        if not mine:
            self._subscribed.pop(outbox, None)

    def detach(self, outbox: Outbox) -> None:
        """Forget a connection."""
        self.unsubscribe(outbox, [*self._subscribed.get(outbox, ())])

    def _begin(self, topic: BarTopic) -> None:
        """Make the present bar of a topic that gets its first subscriber."""
        newest = self.minutes.newest(topic.symbol)
        now = self.minutes.closed_to if newest is None else newest
        self._make_awaited(topic, topic.period(now))

    def _forget(self, topic: BarTopic) -> None:
        topics = self._topics.get(topic.symbol, [])
        if topic in topics:
            topics.remove(topic)
        if not topics:
            self._topics.pop(topic.symbol, None)

    def rename(self, symbol: str, new: str) -> None:
        """Go on with a symbol's bars, and their subscribers, under a new symbol."""
        self.minutes.rename(symbol, new)
        topics = self._topics.pop(symbol, [])
        for topic in topics:
            topic.rename(new)
        if topics:
            self._topics.setdefault(new, []).extend(topics)

    def begin_anew(self, symbol: str, begun: int = LAST_MINUTE) -> None:
        """Forget the trades of a symbol that another instrument has since the minute `begun`."""
        self.minutes.begin_anew(symbol, begun)
        for topic in self._topics.get(symbol, ()):
            topic.begin_anew()

    def delist(self, symbol: str) -> None:
        """End the subscriptions to a symbol's bars."""
        for topic in self._topics.pop(symbol, []):
            topic.over = True
            for outbox in [*topic.subscribers]:
                self.unsubscribe(outbox, [topic])

    async def run(self) -> None:
        """Send bars, until cancelled."""
        async with trio.open_nursery() as self._jobs:
            while True:
                await trio.sleep(TICK)
                if self.own_clock:
                    # No other instance waits for what was restored.
                    self.minutes.take_restored()
                    if closing := await self.settle():
                        self.close(closing)
                self.send_changes()

    def follow(self, closing: Closing, *, exactly: bool) -> None:
        """Go on from another instance's minutes. Their state comes next. `exactly`: forget what this
        instance closed itself.
        """
        if not closing.to:
            return
        self.minutes.followed = True
        self.minutes.doubt(self._topics)
        if exactly or closing.to > self.minutes.closed_to:
            self.minutes.follow(closing.to)
        self.minutes.whole_from = 0
        self.minutes.forget(closing.whole_from)

    def on_lap(self, row: int, first_row: int = 1) -> None:
        """Count each trade of a replay once: in the lap that begins with `first_row`. The present lap
        begins with `row`.
        """
        if row > first_row and not self.minutes.repeats_from:
            self.minutes.repeats_from = row

    @property
    def due(self) -> int:
        """The minute up to which minutes can be closed now, 0 if all of these are closed."""
        now = self.now_us()
        if self.replaying:
            now = self.minutes.newest_us
            if self.ended and now:
                now += MINUTE_US - now % MINUTE_US + GRACE_US
        closing = closed_at(now)
        return closing if closing > self.minutes.closed_to else 0

    async def settle(self) -> int:
        """Return `due`. A replay may be faster than the grace: its trades before now count first."""
        closing = self.due
        if closing and self.replaying:
            for event in self._cut():
                await event.wait()
        return closing

    def close(self, closed_to: int) -> None:
        """Make all minutes before `closed_to` final, and send their bars."""
        before = self.minutes.closed_to
        for minute, symbols in self.minutes.close(closed_to):
            for topic in self._topics_of(symbols):
                topic.unfinished.add(topic.period(minute))
        for symbol, minute in self.minutes.missing:
            if before <= minute < self.minutes.closed_to:
                for topic in self._topics_of([symbol]):
                    topic.awaited.add(topic.period(minute))
        self._finish(before)
        for topics in self._topics.values():
            for topic in topics:
                topic.fold(self.minutes.oldest_kept)
        if lost := self.minutes.release():
            log.warning("bars are lost, as the store takes none", bars=lost)

    def _finish(self, before: int) -> None:
        """Send the bars of periods that are over, in their order, each period with its `bars_end`."""
        closed_to = self.minutes.closed_to
        done = dict[tuple[Timeframe, int], list[BarTopic]]()
        for timeframe in self._watched:
            newest = period_start(closed_to, timeframe, self.zone) - 1
            period = period_start(newest, timeframe, self.zone)
            if period_end(period, timeframe, self.zone) > before and newest > 0:
                done[timeframe, period] = []
        for topics in self._topics.values():
            for topic in topics:
                for period in [each for each in topic.unfinished if topic.end(each) <= closed_to]:
                    topic.unfinished.discard(period)
                    done.setdefault((topic.timeframe, period), []).append(topic)
        for timeframe, period in sorted(
            done, key=lambda each: (period_end(each[1], each[0], self.zone), each)
        ):
            for topic in done[timeframe, period]:
                self._make_awaited(topic, period)
            self._end(timeframe, period)

    def _end(self, timeframe: Timeframe, period: int) -> None:
        """Send `bars_end` to all who have their bars, and hold it back for the others."""
        watched = self._watched.get(timeframe)
        if watched and watched.outboxes:
            message = BarsEnd(timeframe, minute_time(period))
            if watched.end is None:
                watched.end = EndSource(message)
            watched.end.renew(message)
            watched.ended, watched.held = period, self._awaiting(timeframe, period)
            for outbox in watched.held:
                # An earlier end that still waits in this outbox would get the time of the new one.
                outbox.forget([watched.end])
            for group in watched.outboxes.groups:
                ready = [each for each in group if each not in watched.held]
                self._flusher.queue(watched.end.current_frame(group.view), ready, time_ns() // 1000)

    def _awaiting(self, timeframe: Timeframe, ended: int) -> set[Outbox]:
        """Return who watches a bar that began at `ended`, or before, and that waits for the store."""
        found = set[Outbox]()
        for topics in self._topics.values():
            for topic in topics:
                if topic.timeframe == timeframe and topic.awaited and topic.awaits(ended):
                    found.update(topic.subscribers)
        return found

    def _release_ends(self) -> None:
        """Send the newest `bars_end` that was held back to those who have their bars now."""
        for timeframe, watched in self._watched.items():
            if watched.held and watched.end:
                awaiting = self._awaiting(timeframe, watched.ended)
                ready, watched.held = watched.held - awaiting, watched.held & awaiting
                for outbox in ready:
                    frame = watched.end.current_frame(outbox.view)
                    self._flusher.queue(frame, [outbox], time_ns() // 1000)

    def send_changes(self) -> None:
        """Send final bars that were revised, and open ones that changed."""
        self._load_gone()
        for bar in self.minutes.take_revised():
            for topic in self._topics_of([bar.symbol]):
                period = topic.period(bar.minute)
                if period in topic.loading:
                    topic.outdated.add(period)
                if topic.is_stale(bar.minute):
                    self._load(topic, period)
                else:
                    self._make(topic, period)
        for topic in self._topics_of(self.minutes.take_changed()):
            newest = self.minutes.newest(topic.symbol)
            if newest is not None:
                self._make(topic, topic.period(newest))
        self._release_ends()

    def _load_gone(self) -> None:
        """Ask the store for final bars that left the memory before clients had their newest state."""
        for (symbol, minute), changed in self.minutes.take_gone().items():
            for topic in self._topics_of([symbol]):
                period = topic.period(minute)
                if period in topic.loading:
                    topic.outdated.add(period)
                elif changed or topic.has_sent(period):
                    self._load(topic, period)

    def _topics_of(self, symbols: Iterable[str]) -> Iterable[BarTopic]:
        for symbol in symbols if self._topics else ():
            yield from self._topics.get(symbol, ())

    def _make_awaited(self, topic: BarTopic, period: int) -> None:
        """Send a bar of which clients have nothing yet, or whose final state is due."""
        self._make(topic, period)
        if not topic.knows(period):
            topic.awaited.add(period)

    def _make(self, topic: BarTopic, period: int) -> None:
        """Send a bar as it is now. If memory does not have all of it, ask the store first."""
        if not topic.knows(period):
            self._load(topic, period)
            return
        bar = topic.bar(period)
        if bar is None:
            return
        if not bar.final:
            topic.unfinished.add(period)
        source = topic.source(bar, self._instrument(topic.symbol).price_decimals)
        if source:
            self._flusher.send(source, topic.subscribers, time_ns() // 1000)

    def _load(self, topic: BarTopic, period: int) -> None:
        """Ask the store for a period, once at a time, unless memory has all of it.

        While trades of the period wait for what the store has of their minute, do nothing. Their bar is
        revised next, and a bar without them may be older than the one that clients have.
        """
        symbol, end = topic.symbol, topic.end(period)
        if self.load is None or period >= self.minutes.whole_from:
            topic.restore(period, self.minutes.whole_from, None)
            self._make(topic, period)
        elif not (period in topic.loading or self.minutes.is_missing(symbol, period, end)):
            topic.loading.add(period)
            self._jobs.start_soon(self._ask, self.load, topic, period)

    async def _ask(self, load: Load, topic: BarTopic, period: int) -> None:
        """Ask the store until it answers, as long as anybody watches. Then send the bar."""
        while topic.subscribers:
            whole_from, symbol = self.minutes.whole_from, topic.symbol
            end = min(topic.end(period), topic.stored_to)
            memory = topic.in_memory(period, end)
            topic.outdated.discard(period)
            begun = begun_us(self._instrument(symbol).adjustments) // MINUTE_US
            try:
                stored = await load(symbol, max(period, begun), end, memory)
            except BarsUnavailable:
                await trio.sleep(TICK)
                continue
            # A minute that came into memory meanwhile would count twice, and one that left it never.
            now = self.minutes.whole_from, topic.symbol, topic.in_memory(period, end)
            changed = now != (whole_from, symbol, memory) or period in topic.outdated
            if not changed:
                topic.restore(period, end, stored)
                break
        topic.loading.discard(period)
        if topic.subscribers:
            self._make(topic, period)
