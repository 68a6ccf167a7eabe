"""An intake for tests: a market of a few symbols, a clock that stands still, and their quotes."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from server.intake.answer import Answer
from server.intake.intake import Intake
from server.intake.kept import Values
from server.intake.market import Effect, Notice, Rules
from server.intake.objects import read_batch
from server.quotes.instrument import Instrument
from server.quotes.opening import begun_once, opened, opening_of
from server.quotes.quote import Quote, opening_quote, quote_after, to_microseconds

NOW = 1_764_012_345_678_901
SECOND = 1_000_000

INSTRUMENTS = [
    Instrument(symbol="AAPL", name="Apple Inc.", base_price=175.5, made_up_price=True),
    Instrument(symbol="BTC/USD", name="Bitcoin", type="CRYPTO", base_price=9e4, size_decimals=8),
    Instrument(symbol="CLK0", name="Crude oil", type="FUTURE", base_price=18.27),
]


class Desk:
    """Publishes to an intake, and keeps the quotes that its effects make."""

    def __init__(self, rules: Rules = Rules()) -> None:
        self.instruments = {each.symbol: each for each in INSTRUMENTS}
        self.quotes: dict[str, Quote] = {
            each.symbol: opening_quote(each, NOW) for each in INSTRUMENTS
        }
        self.versions = dict.fromkeys(self.quotes, 1)
        self.may_be_listed: set[str] = set()
        self.notices: list[Notice] = []
        self.intake = Intake(self, rules)
        self.now = NOW

    def instrument(self, symbol: str) -> Instrument | None:
        """Return a symbol's reference data, None for an unknown symbol."""
        return self.instruments.get(symbol)

    def may_list(self, symbol: str) -> bool:
        """Return whether a trade may list a symbol that does not exist."""
        return symbol in self.may_be_listed

    def values(self, symbol: str) -> Values:
        """Return a symbol's present values."""
        quote = self.quotes[symbol]
        updated = to_microseconds(quote.last_updated) if quote.last_updated else 0
        known = self.instruments.get(symbol)
        traded = quote.open is not None or (known is not None and known.opened_at > 0)
        return Values(quote.current_price, updated, quote.high, quote.low, traded)

    def publish(
        self,
        *objects: dict[str, Any],
        source: str = "sip",
        epoch: str = "1",
        symbols: Sequence[str] | None = None,
    ) -> Answer:
        """Publish objects in one batch."""
        lines = [msgspec.json.encode({"symbol": "AAPL", **each}) for each in objects]
        return self.post(b"\n".join(lines), source=source, epoch=epoch, symbols=symbols)

    def post(
        self,
        body: bytes,
        source: str = "sip",
        epoch: str = "1",
        symbols: Sequence[str] | None = None,
    ) -> Answer:
        """Publish the objects of a body."""
        taken = self.intake.take(read_batch(body), source, epoch, symbols, self.now)
        self.apply(taken.effects)
        return taken.answer

    def apply(self, effects: Iterable[Effect]) -> None:
        """Move the quotes."""
        for effect in effects:
            if isinstance(effect, Notice):
                self.notices.append(effect)
                continue
            instrument = self.instruments[effect.symbol]
            old, update = self.quotes[effect.symbol], begun_once(effect, instrument)
            new = quote_after(old, update, instrument.price_decimals, instrument.size_decimals)
            if opening := opening_of(update):
                self.instruments[effect.symbol] = opened(instrument, opening, new)
            self.quotes[effect.symbol] = new
            self.versions[effect.symbol] += new != old

    def pass_time(self, seconds: float) -> None:
        """Move the clock on."""
        self.now += int(seconds * SECOND)


def counts(answer: Answer) -> tuple[int, int, int, int, list[str]]:
    """Return how many objects are accepted, duplicate, late, held; and the rejections' codes."""
    codes = [str(each.code) for each in answer.rejected]
    return answer.accepted, answer.duplicate, answer.late, answer.held, codes
