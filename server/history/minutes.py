"""Makes one-minute bars of the trades that make the quotes: the newest minutes of all symbols.

A minute is open, then final. From `close` on, all minutes before `closed_to` are final, and each change
of one of them makes its next revision. Nothing here reads a clock or waits. Each instance applies the
same trades in the same order, so each has the same bars.
"""

from collections.abc import Collection, Iterable, Sequence
from itertools import islice

import msgspec

from server.history.bar import MinuteBar, exact, minute_bar, trades_in
from server.quotes.instrument import Instrument, at_tick
from server.quotes.traded import MINUTE_US, Closing, KeptMinute, Traded, traded
from server.quotes.update import Move, Trade, Update

GRACE_US = 2_000_000
"""Microseconds after a minute's end in which its trades may still come. Later ones revise it."""

KEPT_MINUTES = 3
"""Final minutes kept in memory though the store has them: most late trades find their minute here."""

SHARED_MINUTES = 60
"""The most minutes of a symbol that other instances get. There are more if the store takes none."""

MAX_UNWRITTEN = 200_000
"""Final bars kept for the store, some 100 MB. If it takes none for so long, the oldest are lost."""

Key = tuple[str, int]
"""A symbol and a minute."""


class Minutes:
    """The newest minutes. Owned by the hub.

    `closed_to`: all minutes before it are final. `whole_from`: all trades of the minutes from there on
    came to this process. A trade of an earlier minute that is not in memory waits until `restore`.
    `followed`: another instance's minutes were taken over. `repeats_from`: the first row of a replay's
    second lap, 0 before it. Its rows count only once. `newest_us`: the newest time of all trades.
    `lost` counts bars that the store took too late.
    """

    def __init__(self, closed_to: int = 0, whole_from: int = 0) -> None:
        self.closed_to = closed_to
        self.whole_from = whole_from
        self.followed = False
        self.repeats_from = 0
        self.newest_us = 0
        self.lost = 0
        self._minutes: dict[int, dict[str, KeptMinute]] = {}
        self._unclosed: set[int] = set()
        # Their `rev` is the number of changes that they make of the store's bar.
        self._detached: dict[Key, KeptMinute] = {}
        self._changed: dict[str, None] = {}
        self._restored: dict[str, None] = {}
        self._revised: dict[Key, None] = {}
        self._doubted: dict[Key, KeptMinute] = {}
        self._unwritten: dict[Key, None] = {}

    def begin(self, now_us: int) -> None:
        """Begin with the next minute: an earlier run may have counted trades of the present one."""
        self.closed_to = closed_at(now_us)
        self.whole_from = now_us // MINUTE_US + 1

    def absorb(self, instrument: Instrument, update: Update, price: float | None) -> None:
        """Count the trades of an update. `price` is the quote's after it."""
        if self.repeats_from and update.row >= self.repeats_from:
            return
        if isinstance(update, Trade) and price is not None:
            if update.time_us:
                self._add(instrument, traded(price, update.size, update.time_us))
            return
        parts = update.trades if isinstance(update, Move) else update.change.minutes
        for part in parts:
            self._add(instrument, _at_tick(part, instrument.price_decimals))

    def _add(self, instrument: Instrument, part: Traded) -> None:
        symbol, minute = instrument.symbol, part.minute
        is_newest = part.last_us > self.newest_us
        self.newest_us = part.last_us if is_newest else self.newest_us
        symbols = self._minutes.get(minute)
        kept = symbols.get(symbol) if symbols else None
        if kept is None and minute < self.whole_from:
            before = self._detached.get((symbol, minute))
            trades, changes = (before.trades.then(part), before.rev) if before else (part, 0)
            changes += minute < self.closed_to
            self._detached[symbol, minute] = KeptMinute(trades, changes, partial=True)
            return
        if kept is not None:
            part = kept.trades.then(part)
        if type(part.volume) is float:
            volume = at_tick(part.volume, instrument.size_decimals)
            part = msgspec.structs.replace(part, volume=volume)
        if minute >= self.closed_to:
            if symbols is None:
                self._keep(symbol, KeptMinute(part))
            else:
                symbols[symbol] = KeptMinute(part)
            self._changed[symbol] = None
        else:
            self._keep(symbol, KeptMinute(part, kept.rev + 1 if kept else 1))
            self._revise(symbol, minute)

    def _keep(self, symbol: str, kept: KeptMinute) -> None:
        minute = kept.trades.minute
        symbols = self._minutes.get(minute)
        if symbols is None:
            symbols = self._minutes[minute] = {}
            if minute >= self.closed_to:
                self._unclosed.add(minute)
        symbols[symbol] = kept

    def _revise(self, symbol: str, minute: int) -> None:
        """Note that a final bar changed, or came."""
        self._revised[symbol, minute] = None
        self._unwritten[symbol, minute] = None

    def close(self, closed_to: int) -> list[tuple[int, list[str]]]:
        """Make all minutes before `closed_to` final. Return those that were open, the oldest first,
        each with the symbols that have a bar in it.
        """
        self.closed_to = max(self.closed_to, closed_to)
        closed = []
        for minute in sorted(each for each in self._unclosed if each < self.closed_to):
            self._unclosed.discard(minute)
            symbols = [*self._minutes[minute]]
            self._unwritten.update(((symbol, minute), None) for symbol in symbols)
            closed.append((minute, symbols))
        return closed

    def follow(self, closed_to: int) -> None:
        """Take over how far another instance has closed its minutes. They come next, and `close` then
        returns those that were open here.
        """
        self.closed_to = closed_to
        self._restored.clear()
        self._unclosed.update(each for each in self._minutes if each >= closed_to)

    def take_changed(self) -> list[str]:
        """Take out the symbols of which an open minute changed since the last call."""
        changed, self._changed = self._changed, {}
        return [*changed]

    def take_revised(self) -> list[MinuteBar]:
        """Take out the final bars that changed since the last call."""
        revised, self._revised = self._revised, {}
        return [bar for key in revised if (bar := self.bar(*key))]

    def doubt(self, symbols: Iterable[str]) -> None:
        """Note that this instance may have missed trades of these symbols' final bars."""
        final = [each for each in self._minutes if each < self.closed_to]
        for symbol in symbols:
            for minute in final:
                if kept := self._minutes[minute].get(symbol):
                    self._doubted[symbol, minute] = kept

    def take_gone(self) -> dict[Key, bool]:
        """Take out the bars that left the memory before clients had their newest state: the store has
        it. A bar's value is True if it changed, and False if it may have.
        """
        gone = {
            key: key in self._revised
            for key in {**self._doubted, **self._revised}
            if key[0] not in self._minutes.get(key[1], ())
        }
        for key in gone:
            self._revised.pop(key, None)
        self._doubted = {}
        return gone

    def bar(self, symbol: str, minute: int) -> MinuteBar | None:
        """Return a bar, None if it is not in memory."""
        kept = self._minutes.get(minute, {}).get(symbol)
        return self._bar(symbol, kept) if kept else None

    def _bar(self, symbol: str, kept: KeptMinute) -> MinuteBar:
        final = kept.trades.minute < self.closed_to
        return minute_bar(symbol, kept.trades, final=final, rev=kept.rev)

    def newest(self, symbol: str) -> int | None:
        """Return the newest minute of a symbol with a bar in memory."""
        found = (minute for minute, symbols in self._minutes.items() if symbol in symbols)
        return max(found, default=None)

    def recent(self, symbols: Iterable[str], start: int, end: int) -> list[MinuteBar]:
        """Return the bars in memory from the minute `start` to before `end`: all that are not written,
        and some that are. Those of a symbol come in the order of time.
        """
        wanted = [self._minutes[each] for each in sorted(self._minutes) if start <= each < end]
        return [
            self._bar(symbol, kept)
            for symbol in symbols
            for minute in wanted
            if (kept := minute.get(symbol))
        ]

    def open_bars(self) -> list[MinuteBar]:
        """Return all bars that are not final."""
        return [
            self._bar(symbol, kept)
            for minute in sorted(self._unclosed)
            for symbol, kept in self._minutes[minute].items()
        ]

    def unwritten(self, limit: int) -> list[MinuteBar]:
        """Return final bars that the store does not have, the first to become final first."""
        return [bar for key in islice(self._unwritten, limit) if (bar := self.bar(*key))]

    @property
    def unwritten_count(self) -> int:
        """The number of final bars that the store does not have."""
        return len(self._unwritten)

    def written(self, bars: Iterable[MinuteBar]) -> None:
        """Note that the store has bars, unless they changed meanwhile."""
        for bar in bars:
            now = self.bar(bar.symbol, bar.minute)
            if now is None or now == bar:
                self._unwritten.pop((bar.symbol, bar.minute), None)

    def forget(self, before: int) -> None:
        """Forget minutes `before` one that another instance has written."""
        if before > self.whole_from:
            self.whole_from = before
            for key in [key for key in self._unwritten if key[1] < before]:
                del self._unwritten[key]
            for minute in [each for each in self._minutes if each < before]:
                self._keep_needed(minute)

    def _keep_needed(self, minute: int) -> dict[str, KeptMinute]:
        """Forget the bars of a minute that the store, clients and other instances have. Return the
        others.
        """
        symbols = self._minutes.pop(minute)
        kept = {
            name: symbols[name]
            for name in symbols
            if name in self._restored
            or (name, minute) in self._unwritten
            or (name, minute) in self._revised
        }
        if kept:
            self._minutes[minute] = kept
        else:
            self._unclosed.discard(minute)
        return kept

    @property
    def closing(self) -> Closing:
        """How far the minutes are closed. Other instances get it with the trades."""
        return Closing(self.closed_to, self.whole_from)

    @property
    def oldest_kept(self) -> int:
        """The oldest minute that stays in memory when it is written."""
        return self.closed_to - KEPT_MINUTES

    def release(self) -> int:
        """Forget old bars that the store has, and that clients have. Return the number of bars that are
        lost, as the store takes none.
        """
        lost = [*islice(self._unwritten, max(0, len(self._unwritten) - MAX_UNWRITTEN))]
        for key in lost:
            del self._unwritten[key]
        for minute in [each for each in self._minutes if each < self.oldest_kept]:
            symbols = self._minutes[minute]
            kept = self._keep_needed(minute)
            if len(kept) < len(symbols):
                self.whole_from = max(self.whole_from, minute + 1)
        self.lost += len(lost)
        return len(lost)

    @property
    def missing(self) -> Sequence[Key]:
        """The symbols and minutes of trades that wait for what the store has of their minute."""
        return [*self._detached]

    def is_missing(self, symbol: str, start: int, end: int) -> bool:
        """Whether trades of a symbol's minutes from `start` to before `end` wait so."""
        if end - start < len(self._detached):
            return any((symbol, each) in self._detached for each in range(start, end))
        return any(key[0] == symbol and start <= key[1] < end for key in self._detached)

    def restore(self, bars: Iterable[MinuteBar], missing: Iterable[Key] = ()) -> None:
        """Go on from the store's `bars`. It has no others of the `missing`. Bars in memory stay."""
        found = {(bar.symbol, bar.minute): bar for bar in bars}
        for key in dict.fromkeys(found) | dict.fromkeys(missing):
            symbol, minute = key
            waiting, bar = self._detached.pop(key, None), found.get(key)
            part = waiting.trades if waiting else None
            trades = trades_in(bar) if bar else part
            if trades is None or self.bar(*key):
                continue
            if bar and part:
                trades = trades.then(part)
                trades = msgspec.structs.replace(trades, volume=exact(trades.volume))
            final = minute < self.closed_to
            rev = (bar.rev if bar else 0) + (max(1, waiting.rev) if waiting else 0)
            self._keep(symbol, KeptMinute(trades, rev if final else 0))
            self._restored[symbol] = None
            if not final:
                self._changed[symbol] = None
            elif part or not (bar and bar.final):
                self._revise(symbol, minute)

    @property
    def restored(self) -> Collection[str]:
        """The symbols that were restored, and of which other instances do not know that yet."""
        return self._restored

    def take_restored(self) -> list[str]:
        """Take out the symbols that were restored: other instances are told now."""
        restored, self._restored = self._restored, {}
        return [*restored]

    def state_of(self, symbol: str) -> tuple[KeptMinute, ...]:
        """Return the newest minutes, which the next leader goes on with."""
        state = [kept for symbols in self._minutes.values() if (kept := symbols.get(symbol))]
        if self._detached:
            state += [kept for key, kept in self._detached.items() if key[0] == symbol]
        state.sort(key=lambda each: each.trades.minute)
        return tuple(state[-SHARED_MINUTES:])

    def trades_of(self, symbol: str) -> tuple[Traded, ...]:
        """Return the trades of a symbol's newest minutes that are in memory."""
        return tuple(each.trades for each in self.state_of(symbol) if not each.partial)

    def adopt(self, symbol: str, state: Iterable[KeptMinute]) -> None:
        """Take over another instance's minutes of a symbol, in place of those that may be older."""
        new = {each.trades.minute: each for each in state}
        old = dict[int, KeptMinute]()
        for minute, symbols in self._minutes.items():
            if symbol in symbols:
                self._unwritten.pop((symbol, minute), None)
                old[minute] = symbols.pop(symbol)
        for key in [key for key in self._detached if key[0] == symbol]:
            del self._detached[key]
        for minute, kept in new.items():
            self.newest_us = max(self.newest_us, kept.trades.last_us)
            if kept.partial:
                self._detached[symbol, minute] = kept
                continue
            self._keep(symbol, kept)
            if minute in self._unclosed:
                self._changed[symbol] = None
            else:
                self._unwritten[symbol, minute] = None
                if kept != (old.get(minute) or self._doubted.get((symbol, minute))):
                    self._revised[symbol, minute] = None

    def begin_anew(self, symbol: str, begun: int) -> None:
        """Forget a symbol's trades: another instrument has it since the minute `begun`. Bars from there
        on stay without a trade, for the store and clients that have them.
        """
        for key in [key for key in self._detached if key[0] == symbol]:
            del self._detached[key]
        for minute in [each for each, symbols in self._minutes.items() if symbol in symbols]:
            kept = self._minutes[minute].pop(symbol)
            for keys in (self._unwritten, self._revised, self._doubted):
                keys.pop((symbol, minute), None)
            if minute >= begun:
                is_final = minute < self.closed_to
                self._keep(symbol, KeptMinute(kept.trades.emptied, kept.rev + is_final))
                if is_final:
                    self._revise(symbol, minute)
        self._changed[symbol] = None

    def rename(self, symbol: str, new: str) -> None:
        """Go on under a new symbol. Minutes that this one has already stay."""
        for symbols in self._minutes.values():
            if kept := symbols.pop(symbol, None):
                symbols.setdefault(new, kept)
        for keys in (self._unwritten, self._revised):
            for key in [key for key in keys if key[0] == symbol]:
                del keys[key]
                keys[new, key[1]] = None
        for key in [key for key in self._doubted if key[0] == symbol]:
            self._doubted[new, key[1]] = self._doubted.pop(key)
        for key in [key for key in self._detached if key[0] == symbol]:
            self._detached.setdefault((new, key[1]), self._detached.pop(key))
        if symbol in self._restored:
            del self._restored[symbol]
            self._restored[new] = None
        self._changed[new] = None


def closed_at(now_us: int) -> int:
    """Return the first minute that is not closed at a time."""
    return (now_us - GRACE_US) // MINUTE_US


def _at_tick(part: Traded, decimals: int) -> Traded:
    return msgspec.structs.replace(
        part,
        open=at_tick(part.open, decimals),
        high=at_tick(part.high, decimals),
        low=at_tick(part.low, decimals),
        close=at_tick(part.close, decimals),
    )
