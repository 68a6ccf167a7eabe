"""The symbols that published trades list (PUSH_LISTS_SYMBOLS)."""

from collections.abc import Callable

from server.intake.answer import Refused
from server.intake.checks import trade_of
from server.intake.objects import Published, read_time
from server.quotes.instrument import Instrument, first_seen

MAX_NEW_SYMBOLS = 50_000
"""Symbols that trades may list until the server stops: each stays in memory and in the store."""


def listed_by(given: Published, now: int) -> Instrument | None:
    """Return the instrument that an object lists: a trade that the rules do not refuse at `now`."""
    if given.kind != "trade" or not given.price:
        return None
    instrument = first_seen(given.symbol, given.price)
    try:
        trade_of(given, instrument)
        read_time(given.ts, now)
    except Refused:
        return None
    return instrument


class NewSymbols:
    """Knows the new symbols until the market does. `listed` is the number of all."""

    def __init__(self) -> None:
        self.listed = 0
        self._waiting: dict[str, Instrument] = {}

    def instrument(self, given: Published, *, may_list: bool) -> Instrument:
        """Return the instrument of a symbol that the market does not know. Errors: Refused."""
        known = self._waiting.get(given.symbol)
        price = given.price if given.kind == "trade" else None
        if not may_list or not (known or price):
            raise Refused("unknown_symbol", f"no instrument has the symbol {given.symbol}")
        if known is None and self.listed >= MAX_NEW_SYMBOLS:
            problem = f"trades have listed {MAX_NEW_SYMBOLS} symbols; import {given.symbol}"
            raise Refused("too_many_symbols", problem)
        return known or first_seen(given.symbol, price or 0.0)

    def add(self, instrument: Instrument) -> None:
        """Remember a symbol whose first trade is on its way to the market."""
        self.listed += instrument.symbol not in self._waiting
        self._waiting[instrument.symbol] = instrument

    def forget_known(self, instrument: Callable[[str], Instrument | None]) -> None:
        """Forget the symbols that the market knows now. `instrument` returns a known one."""
        if self._waiting:
            self._waiting = {
                symbol: each for symbol, each in self._waiting.items() if not instrument(symbol)
            }
