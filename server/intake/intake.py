"""The rule book for prices from outside, one for all the ways they come.

Objects go in, updates of quotes and answers come out. No method waits, and the caller hands the time
in. So every order and repetition can be tested.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple

import msgspec

from server.intake.answer import Answer, Reason, Refused
from server.intake.checks import (
    book_of,
    corrected,
    require_allowed,
    required_id,
    required_status,
    trade_of,
)
from server.intake.effects import before_opening, late_trade, restated
from server.intake.held import Candidate, HeldTrades
from server.intake.kept import NO_ID, NO_SEQ, Row
from server.intake.market import Effect, Market, Notice, Rules, Taken
from server.intake.names import FormerNames
from server.intake.new_symbols import NewSymbols
from server.intake.objects import Line, Published, read_time
from server.intake.once import SEQ_WINDOW, RecentIds
from server.intake.session import begin_session
from server.intake.sources import MAX_SOURCES, Source, Sources
from server.intake.trades import KeptTrades
from server.quotes.adjustment import price_adjustments
from server.quotes.instrument import Instrument
from server.quotes.messages import MarketState
from server.quotes.update import TopOfBook, Trade
from server.sessions.calendar import LastOpening

TOO_MANY_SOURCES = Reason(
    "too_many_sources", f"{MAX_SOURCES} sources have sent prices in the last five minutes"
)

TOO_OLD = (
    f"seq {{seq}} is {SEQ_WINDOW} or more below the highest one, so the server does not know whether "
    "it came before; send numbers in order, or begin another Source-Epoch"
)

REASONS: dict[MarketState, str] = {"open": "resumed", "halted": "halted", "closed": "closed"}
"""The reasons of statuses without one."""


class _Batch(NamedTuple):
    """A batch: its publisher, the moment of intake, and its effects and its answer so far."""

    source: Source
    epoch: str
    symbols: Sequence[str] | None
    now: int
    effects: list[Effect]
    answer: Answer

    def accept(self, effect: Effect) -> None:
        self.effects.append(effect)
        self.answer.accepted += 1

    def outrank(self) -> None:
        self.answer.accepted += 1
        self.answer.outranked = (self.answer.outranked or 0) + 1


class Intake:
    """Knows what was published. All times are in microseconds since 1970."""

    def __init__(self, market: Market, rules: Rules = Rules()) -> None:
        self._market = market
        self._rules = rules
        self.begin()

    def begin(self) -> None:
        """Forget everything, as if nothing had been published."""
        rules = self._rules
        self.sources = Sources(rules.priority, int(rules.silent_after * 1e6), rules.own)
        self.held = HeldTrades(rules.band or 0.0)
        self.trades = KeptTrades(rules.trades_memory)
        self.ids = RecentIds()
        self.new = NewSymbols()
        self.former = FormerNames()
        self._opening = LastOpening(rules.session)

    def rename(self, symbol: str, new: str, now: int) -> None:
        """Go on with everything that is known of `symbol` under its new name."""
        self.sources.rename(symbol, new)
        self.held.rename(symbol, new)
        self.trades.rename(symbol, new)
        self.former.rename(symbol, new, now)

    def forget(self, symbols: Iterable[str]) -> None:
        """Forget symbols that were delisted. An id of theirs still counts once."""
        for symbol in symbols:
            self.sources.forget(symbol)
            self.held.drop(symbol)
            self.trades.forget(symbol)
            self.former.forget(symbol)

    def drop_doubtful_trades(self) -> None:
        """Forget kept trades that do not lead to a symbol's present values."""
        for symbol in self.trades.symbols():
            values = self._market.values(symbol)
            if self.trades[symbol].values()[:4] != values[:4]:
                self.trades.forget(symbol)

    def take(
        self,
        lines: Iterable[Line],
        source: str,
        epoch: str,
        symbols: Sequence[str] | None,
        now: int,
    ) -> Taken:
        """Judge each object of a batch.

        Arguments:
            source, epoch: the publisher's names, which `seq` belongs to.
            symbols: those that the publisher may name, or prefixes ending in `*`; None for all.
            now: the moment of intake.
        """
        taken = Taken([], Answer())
        known = self.sources.get(source, now)
        if known is None:
            lines = [Line(each.number, TOO_MANY_SOURCES, each.frame) for each in lines]
            known = Source(source, 0, 0, now)
        batch = _Batch(known, epoch, symbols, now, *taken)
        take = partial(self._take, batch=batch)
        self.ids.pass_time(now)
        self.new.forget_known(self._market.instrument)
        objects = 0
        for line in lines:
            objects += 1
            line.judge(take, taken.answer, source=source)
        batch.source.count(taken.answer, objects, now)
        return taken

    def _take(self, given: Published, batch: _Batch) -> None:
        """Judge one object. Errors: Refused."""
        instrument = self._instrument(given, batch.symbols)
        if instrument.symbol != given.symbol:
            # A publisher still has the old name. An id under either name counts once.
            given = msgspec.structs.replace(given, symbol=instrument.symbol)
        time_us = read_time(given.ts, batch.now)
        if given.ts is not None:
            batch.source.lag_us = batch.now - time_us
        match given.kind:
            case "trade":
                self._trade(given, instrument, time_us, batch)
            case "quote":
                self._book(given, instrument, time_us, batch)
            case "status":
                self._status(given, batch)
            case "cancel" | "correct":
                self._revise(given, instrument, batch)

    def _instrument(self, given: Published, symbols: Sequence[str] | None) -> Instrument:
        """Return the object's instrument. Errors: Refused."""
        symbol = given.symbol
        require_allowed(symbols, symbol)
        known = self._market.instrument(symbol)
        return known or self.new.instrument(given, may_list=self._market.may_list(symbol))

    def _is_new(self, given: Published, batch: _Batch, key: int = NO_ID) -> bool:
        """Return whether neither the sequence number nor the hash of an id was counted before.

        Errors: Refused, if the server does not know.
        """
        seq = given.seq
        seen = bool(key) and key in self.ids
        if seq is not None and not seen:
            seqs = batch.source.seqs(batch.epoch, given.symbol)
            seen = seq in seqs
            if seen and seq <= seqs.unknown:
                raise Refused("seq_too_old", TOO_OLD.format(seq=seq))
        batch.answer.duplicate += seen
        # A source that only repeats itself has nothing to say, and does not outrank others.
        if not seen:
            batch.source.newest(given.symbol).heard_at = batch.now
        return not seen

    def _key(self, given: Published, batch: _Batch, event: bytes = b"") -> int:
        """Return the hash of the object's id; with `event`, the hash of that event on the trade."""
        symbol = given.symbol

        def is_known(key: int, counted: bool) -> bool:
            seen = counted and key in self.ids
            return seen or self.held.has(symbol, key) or self.trades.find(symbol, key) is not None

        return self.former.key(symbol, given.id, batch.now, is_known, event)

    def _count(self, given: Published, batch: _Batch, key: int = NO_ID) -> None:
        """Remember the object's sequence number and the hash of its id, so that it counts once."""
        if given.seq is not None:
            batch.source.seqs(batch.epoch, given.symbol).add(given.seq)
        if key:
            self.ids.add(key)

    def _trade(self, given: Published, instrument: Instrument, time_us: int, batch: _Batch) -> None:
        symbol, source = given.symbol, batch.source
        price, size = trade_of(given, instrument)
        key = self._key(given, batch)
        if not self._is_new(given, batch, key):
            return
        if self.sources.is_outranked(source, symbol, batch.now):
            # Its id stays free: the first source may still bring the same trade.
            self._count(given, batch)
            batch.outrank()
            return
        self._count(given, batch, key)
        self._begin(symbol, instrument, batch)
        candidate = Candidate(price, size, time_us, _seq(given), key, source)
        if self._rules.band is not None and self._holds(symbol, candidate, instrument, batch):
            batch.answer.held += 1
        elif self._apply(symbol, candidate, batch):
            batch.answer.late += 1
        else:
            batch.answer.accepted += 1

    def _holds(
        self, symbol: str, candidate: Candidate, instrument: Instrument, batch: _Batch
    ) -> bool:
        """Hold a trade back if it is far from the last price and confirms no held one."""
        released = self.held.confirm(symbol, candidate.price)
        for each in released:
            self._apply(symbol, each, batch)
        last = self.trades[symbol].last_price()
        if last is None and not instrument.made_up_price:
            # Before the first trade, clients see the catalogue's price.
            last = self.trades[symbol].values().price
        if released or last is None or self.held.is_near(candidate.price, last):
            return False
        self.held.hold(symbol, candidate)
        return True

    def _apply(self, symbol: str, trade: Candidate, batch: _Batch) -> bool:
        """Count a trade. Return whether it is late."""
        price, size, time_us, seq = trade.price, trade.size, trade.time_us, trade.seq
        newest = trade.source.newest(symbol)
        if not newest.trade[0]:
            # After a restart, the price must not go back.
            newest.trade = self.trades[symbol].since, NO_SEQ
        late = _is_late(time_us, seq, newest.trade)
        if not late:
            newest.trade = time_us, seq
        row = Row(trade.id, time_us, seq, price, size, trade.source.number)
        first = self.trades.add(symbol, row, late=late)
        if time_us < self.trades[symbol].opened:
            batch.effects.append(before_opening(self.trades, symbol, row, batch.now, late=late))
        elif late:
            batch.effects.append(late_trade(symbol, row, batch.now, first=first))
        else:
            batch.effects.append(Trade(symbol, price, size, time_us, batch.now))
        return late

    def _begin(self, symbol: str, instrument: Instrument, batch: _Batch) -> None:
        """Note a symbol's values before its first trade, and begin a session that is due."""
        self._begin_trades(symbol, instrument)
        opening, now = self._opening.at(batch.now), batch.now
        if update := begin_session(self.trades, symbol, instrument, opening, now):
            batch.effects.append(update)

    def _begin_trades(self, symbol: str, instrument: Instrument) -> None:
        """Note a symbol's values before its first trade, and anew after a split of its prices. Trades
        from before a split are at its old prices, so forget them.
        """
        adjustments = price_adjustments(instrument.adjustments)
        if symbol in self.trades and (
            adjustments == self.trades[symbol].adjustments
            or self._market.instrument(symbol) is None
        ):
            return
        if symbol in self.trades:
            self.held.drop(symbol)
        if self._market.instrument(symbol) is None:
            self.new.add(instrument)
        values = self._market.values(symbol)
        self.trades.begin(symbol, values, adjustments, instrument.opened_at)

    def _book(self, given: Published, instrument: Instrument, time_us: int, batch: _Batch) -> None:
        symbol, sides = given.symbol, book_of(given, instrument)
        if self._counts(given, batch):
            newest = batch.source.newest(symbol)
            if _is_late(time_us, _seq(given), newest.book):
                batch.answer.late += 1
                return
            newest.book = time_us, _seq(given)
            batch.accept(TopOfBook(symbol, *sides, time_us, batch.now))

    def _status(self, given: Published, batch: _Batch) -> None:
        status = required_status(given.status)
        if self._is_new(given, batch):
            # Of any source: a price is the first source's, a halt is the market's.
            self._count(given, batch)
            batch.accept(Notice(given.symbol, status, given.reason or REASONS[status]))

    def _counts(self, given: Published, batch: _Batch) -> bool:
        """Count an object without an id, and return whether it has an effect."""
        if not self._is_new(given, batch):
            return False
        self._count(given, batch)
        if self.sources.is_outranked(batch.source, given.symbol, batch.now):
            batch.outrank()
            return False
        return True

    def _revise(self, given: Published, instrument: Instrument, batch: _Batch) -> None:
        """Cancel or correct a trade."""
        symbol, name = given.symbol, required_id(given.id)
        key = self._key(given, batch)
        done = self._key(given, batch, b"cancel") if given.kind == "cancel" else NO_ID
        if not self._is_new(given, batch, done):
            return
        if symbol in self.trades:
            self._begin(symbol, instrument, batch)
        if given.kind == "cancel":
            revised = self._cancel(symbol, key, instrument, batch)
        else:
            revised = self._correct(given, key, instrument, batch)
        if revised:
            self._count(given, batch, done)
            batch.answer.accepted += 1
        elif self.sources.is_outranked(batch.source, symbol, batch.now):
            self._count(given, batch)
            batch.outrank()
        else:
            raise Refused("unknown_trade", f"trade {name!r} of {symbol} is not kept, or never came")

    def _cancel(self, symbol: str, key: int, instrument: Instrument, batch: _Batch) -> bool:
        """Take a trade out. Return whether there is such a trade."""
        if self.held.take(symbol, key):
            return True
        row = self.trades.find(symbol, key)
        if row is None:
            return False
        self.trades.replace(symbol, key, None)
        self.sources.on_cancelled(symbol, row, self.trades[symbol].newest_of(row.source))
        batch.effects.append(restated(self.trades, instrument, row, -row.size, batch.now))
        return True

    def _correct(self, given: Published, key: int, instrument: Instrument, batch: _Batch) -> bool:
        """Change a trade's price or size. Return whether there is such a trade."""
        symbol = given.symbol
        price, size = corrected(given, instrument)
        if held := self.held.take(symbol, key):
            held.price = held.price if price is None else price
            held.size = held.size if size is None else size
            self._apply(symbol, held, batch)
            return True
        if price is None and size is None:
            raise Refused("bad_price", "price and size are missing: a correct changes one or both")
        row = self.trades.find(symbol, key)
        if row is None:
            return False
        new = row._replace(
            price=row.price if price is None else price, size=row.size if size is None else size
        )
        if new != row:
            self.trades.replace(symbol, key, new)
            volume = new.size - row.size
            batch.effects.append(restated(self.trades, instrument, new, volume, batch.now))
        return True


def _seq(given: Published) -> int:
    return NO_SEQ if given.seq is None else given.seq


def _is_late(time_us: int, seq: int, newest: tuple[int, int]) -> bool:
    """Return whether an event is older than the newest. Numbers order events of equal times."""
    if seq == NO_SEQ:
        return time_us < newest[0]
    return (time_us, seq) < newest
