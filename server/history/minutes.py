"""Makes one-minute bars of the trades that make the quotes: the newest minutes of all symbols.

A minute is open, then final. From `close` on, all minutes before `closed_to` are final, and each change
of one of them makes its next revision. Nothing here reads a clock or waits. Each instance applies the
same trades in the same order, so each has the same bars.
"""

from collections.abc import Iterable, Sequence

import msgspec

from server.history.bar import MinuteBar
from server.quotes.instrument import Instrument, at_tick
from server.quotes.traded import MINUTE_US, KeptMinute, Traded, traded
from server.quotes.update import Move, Trade, Update

GRACE_US = 2_000_000
"""Microseconds after a minute's end in which its trades may still come. Later ones revise it."""

KEPT_MINUTES = 10
"""Final minutes kept in memory though the store has them: a late trade finds its minute here."""

SHARED_MINUTES = 1
"""Final minutes that go with a symbol's state to other instances though the store may have them."""

MAX_BARS = 200_000
"""Final bars kept for the store. If it takes none for so long, the oldest are lost."""


class _Symbol(msgspec.Struct):
    """One symbol's minutes. The decimals are those of the newest trade's instrument."""

    size_decimals: int
    minutes: dict[int, KeptMinute] = msgspec.field(default_factory=dict)

    def bar(self, symbol: str, minute: int) -> MinuteBar:
        trades, final, rev = msgspec.structs.astuple(self.minutes[minute])
        return bar_of_trades(symbol, trades, self.size_decimals, final=final, rev=rev)


class Minutes:
    """The newest minutes. Owned by the hub.

    `closed_to`: all minutes before it are final. `whole_from`: all trades of the minutes from there on
    came to this process. A trade of an earlier minute that is not in memory waits until `restore`.
    `repeats_from`: the first row of a replay's second lap, 0 before it. Its rows count only once.
    `newest_us`: the newest time of all trades.
    """

    def __init__(self, closed_to: int = 0, whole_from: int = 0) -> None:
        self.closed_to = closed_to
        self.whole_from = whole_from
        self.repeats_from = 0
        self.newest_us = 0
        self._symbols: dict[str, _Symbol] = {}
        self._open: dict[int, dict[str, None]] = {}
        self._detached: dict[tuple[str, int], Traded] = {}
        self._changed: dict[str, None] = {}
        self._revised: dict[tuple[str, int], None] = {}
        self._unwritten: dict[tuple[str, int], None] = {}

    def absorb(self, instrument: Instrument, update: Update, price: float | None) -> None:
        """Count the trades of an update. `price` is the quote's after it."""
        if self.repeats_from and update.row >= self.repeats_from:
            return
        if isinstance(update, Trade) and not update.late and price is not None:
            if update.time_us:
                self._add(instrument, traded(price, update.size, update.time_us))
            return
        parts = update.trades if isinstance(update, Move) else update.change.minutes
        for part in parts:
            self._add(instrument, _at_tick(part, instrument.price_decimals))

    def _add(self, instrument: Instrument, part: Traded) -> None:
        name, minute = instrument.symbol, part.minute
        symbol = self._symbols.get(name)
        if symbol is None:
            symbol = self._symbols[name] = _Symbol(instrument.size_decimals)
        symbol.size_decimals = instrument.size_decimals
        kept = symbol.minutes.get(minute)
        self.newest_us = max(self.newest_us, part.last_us)
        if kept is not None:
            part = kept.trades.then(part)
        elif minute < self.whole_from:
            self._detach((name, minute), part)
            return
        if minute >= self.closed_to:
            if kept is None:
                self._open.setdefault(minute, {})[name] = None
            symbol.minutes[minute] = KeptMinute(part)
            self._changed[name] = None
        else:
            symbol.minutes[minute] = KeptMinute(part, final=True, rev=kept.rev + 1 if kept else 1)
            self._revise(name, minute)

    def _detach(self, key: tuple[str, int], part: Traded) -> None:
        before = self._detached.get(key)
        self._detached[key] = part if before is None else before.then(part)

    def _revise(self, symbol: str, minute: int) -> None:
        """Note that a final bar changed, or came."""
        self._revised[symbol, minute] = None
        self._unwritten[symbol, minute] = None

    def close(self, closed_to: int) -> list[tuple[int, list[str]]]:
        """Let all minutes before `closed_to` be final. Return these, the oldest first, each with the
        symbols that have a bar in it.
        """
        self.closed_to = max(self.closed_to, closed_to)
        closed = []
        for minute in sorted(each for each in self._open if each < self.closed_to):
            symbols = [*self._open.pop(minute)]
            for name in symbols:
                minutes = self._symbols[name].minutes
                minutes[minute] = msgspec.structs.replace(minutes[minute], final=True)
                self._unwritten[name, minute] = None
            closed.append((minute, symbols))
        return closed

    def take_changed(self) -> list[str]:
        """Take out the symbols of which an open minute changed since the last call."""
        changed, self._changed = self._changed, {}
        return [*changed]

    def take_revised(self) -> list[MinuteBar]:
        """Take out the final bars that changed since the last call."""
        revised, self._revised = self._revised, {}
        return [bar for key in revised if (bar := self.bar(*key))]

    def bar(self, symbol: str, minute: int) -> MinuteBar | None:
        """Return a bar, None if it is not in memory."""
        found = self._symbols.get(symbol)
        return found.bar(symbol, minute) if found and minute in found.minutes else None

    def newest(self, symbol: str) -> MinuteBar | None:
        """Return a symbol's newest bar, None if none is in memory."""
        found = self._symbols.get(symbol)
        return found.bar(symbol, max(found.minutes)) if found and found.minutes else None

    def recent(self, symbols: Iterable[str], start: int, end: int) -> list[MinuteBar]:
        """Return the bars in memory from the minute `start` to before `end`: all that are not written,
        and some that are. Those of a symbol come in the order of time.
        """
        return [
            found.bar(name, minute)
            for name in symbols
            if (found := self._symbols.get(name))
            for minute in sorted(found.minutes)
            if start <= minute < end
        ]

    def open_bars(self) -> list[MinuteBar]:
        """Return all bars that are not final."""
        return [
            self._symbols[name].bar(name, minute)
            for minute, symbols in self._open.items()
            for name in symbols
        ]

    def unwritten(self, limit: int) -> list[MinuteBar]:
        """Return final bars that the store does not have, the first ones to become so."""
        keys = [key for key, _ in zip(self._unwritten, range(limit), strict=False)]
        return [bar for key in keys if (bar := self.bar(*key))]

    @property
    def unwritten_count(self) -> int:
        """The number of final bars that the store does not have."""
        return len(self._unwritten)

    def written(self, bars: Iterable[MinuteBar]) -> None:
        """Note that the store has bars, unless they changed meanwhile."""
        for bar in bars:
            now = self.bar(bar.symbol, bar.minute)
            if now is None or now.rev == bar.rev:
                self._unwritten.pop((bar.symbol, bar.minute), None)

    def release(self) -> int:
        """Forget old minutes that the store has. Return the number of bars that are lost, as the store
        takes none.
        """
        lost = [*self._unwritten][: max(0, len(self._unwritten) - MAX_BARS)]
        for key in lost:
            del self._unwritten[key]
        oldest = self.closed_to - KEPT_MINUTES
        self.whole_from = max(self.whole_from, oldest)
        for name, symbol in [*self._symbols.items()]:
            for minute in [each for each in symbol.minutes if each < oldest]:
                if symbol.minutes[minute].final and (name, minute) not in self._unwritten:
                    del symbol.minutes[minute]
            if not symbol.minutes:
                del self._symbols[name]
        return len(lost)

    @property
    def missing(self) -> Sequence[tuple[str, int]]:
        """The symbols and minutes of trades that wait for what the store has of their minute."""
        return [*self._detached]

    def restore(
        self, bars: Iterable[MinuteBar], missing: Iterable[tuple[str, int]] = ()
    ) -> list[str]:
        """Go on from the store's `bars`. It has no others of those that were `missing`. Bars in memory
        stay. Return the symbols whose bars changed by that.
        """
        found = {(bar.symbol, bar.minute): bar for bar in bars}
        changed = dict[str, None]()
        for key in found.keys() | dict.fromkeys(missing):
            name, minute = key
            part, bar = self._detached.pop(key, None), found.get(key)
            symbol = self._symbols.setdefault(name, _Symbol(0))
            if minute in symbol.minutes or (part is None and bar is None):
                continue
            before = None if bar is None else trades_of(bar)
            trades = part if before is None else before if part is None else before.then(part)
            if trades is None:
                continue
            rev = (bar.rev if bar else 0) + (part is not None and minute < self.closed_to)
            final = minute < self.closed_to
            symbol.minutes[minute] = KeptMinute(trades, final, rev if final else 0)
            if not final:
                self._open.setdefault(minute, {})[name] = None
            elif part is not None or not (bar and bar.final):
                self._revise(name, minute)
            changed[name] = None
        return [*changed]

    def state_of(self, symbol: str) -> tuple[KeptMinute, ...]:
        """Return the minutes that the next leader needs: those that are open, new or not written."""
        found = self._symbols.get(symbol)
        if found is None:
            return ()
        since = self.closed_to - SHARED_MINUTES
        return tuple(
            kept
            for minute, kept in found.minutes.items()
            if minute >= since or (symbol, minute) in self._unwritten
        )

    def adopt(self, instrument: Instrument, state: Iterable[KeptMinute]) -> None:
        """Take over another instance's minutes of a symbol, in place of those that may be older."""
        name, new = instrument.symbol, {each.trades.minute: each for each in state}
        symbol = self._symbols.setdefault(name, _Symbol(instrument.size_decimals))
        symbol.size_decimals = instrument.size_decimals
        old, symbol.minutes = symbol.minutes, {}
        for minute, kept in old.items():
            if kept.final and (name, minute) not in self._unwritten:
                symbol.minutes[minute] = kept
            elif not kept.final and minute in self._open:
                self._open[minute].pop(name, None)
        for key in [key for key in self._detached if key[0] == name]:
            del self._detached[key]
        for minute, kept in new.items():
            symbol.minutes[minute] = kept
            self.newest_us = max(self.newest_us, kept.trades.last_us)
            if not kept.final:
                self._open.setdefault(minute, {})[name] = None
            if kept == old.get(minute):
                continue
            if kept.final:
                self._revise(name, minute)
            else:
                self._changed[name] = None

    def rename(self, symbol: str, new: str) -> None:
        """Go on under a new symbol. Minutes that this one has already stay."""
        old = self._symbols.pop(symbol, None)
        if old is None:
            return
        into = self._symbols.setdefault(new, _Symbol(old.size_decimals))
        into.minutes = old.minutes | into.minutes
        for names in self._open.values():
            if symbol in names:
                del names[symbol]
                names[new] = None
        for keys in (self._unwritten, self._revised):
            for key in [key for key in keys if key[0] == symbol]:
                del keys[key]
                keys[new, key[1]] = None
        for key in [key for key in self._detached if key[0] == symbol]:
            self._detach((new, key[1]), self._detached.pop(key))
        if self._changed.pop(symbol, 0) is None:
            self._changed[new] = None


def bar_of_trades(
    symbol: str, trades: Traded, size_decimals: int, *, final: bool = False, rev: int = 0
) -> MinuteBar:
    """Return the bar that some trades make."""
    volume = trades.volume
    return MinuteBar(
        symbol,
        trades.minute,
        trades.open,
        trades.high,
        trades.low,
        trades.close,
        at_tick(volume, size_decimals) if type(volume) is float else volume,
        trades.count,
        trades.turnover,
        trades.first_us,
        trades.last_us,
        final,
        rev,
    )


def trades_of(bar: MinuteBar) -> Traded:
    """Return the trades that made a bar."""
    return Traded(
        bar.minute,
        bar.open,
        bar.high,
        bar.low,
        bar.close,
        bar.volume,
        bar.count,
        bar.turnover,
        bar.first_us,
        bar.last_us,
    )


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
