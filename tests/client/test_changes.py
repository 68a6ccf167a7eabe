"""The changes that wait for an application: merged by symbol, in the order in which they began."""

from collections import Counter

import pytest

from quotestream.changes import Changes
from quotestream.document import Document
from quotestream.errors import BadMessage

EVERYTHING = 19
"""Fields of a quote."""


class Market:
    """A document whose quotes move."""

    def __init__(self) -> None:
        self.document = Document()
        self.changes = Changes(self.document)

    def move(self, *symbols: str, **values: object) -> None:
        for symbol in symbols:
            quote = self.document.quotes.setdefault(symbol, {"current_price": 0.0})
            quote.update(values or {"current_price": quote["current_price"] + 1})
            self.document.versions[symbol] = self.document.versions.get(symbol, 0) + 1
        self.changes.note(symbols)


def test_lively_symbol_does_not_wait_for_ever():
    """A symbol that moves between any two reads is read as often as the others, which move less."""
    market, others = Market(), [f"S{number}" for number in range(20)]
    read: Counter[str] = Counter()
    for turn in range(420):
        market.move("A", others[turn % 20], others[(turn + 7) % 20])
        read[market.changes.pop().symbol] += 1
    assert read["A"] >= 20
    assert min(read.values()) >= 15


def test_changes_of_a_symbol_are_merged():
    """The newest quote and version come, with all fields that changed since the last read."""
    market = Market()
    market.move("A")
    first = market.changes.pop()
    assert (first.version, len(first.fields)) == (1, EVERYTHING)
    market.move("A", bid=1.0)
    market.move("A", ask=2.0)
    change = market.changes.pop()
    assert (change.version, change.fields) == (3, frozenset({"bid", "ask"}))
    assert change.quote == market.changes.quotes["A"]
    assert not market.changes


def test_quote_that_was_taken_away_is_a_change():
    """Its quote is None, and its version the last one."""
    market = Market()
    market.move("A")
    market.changes.pop()
    market.document.forget(["A"])
    market.changes.note(["A", "B"])
    change = market.changes.pop()
    assert (change.symbol, change.quote, len(change.fields)) == ("A", None, EVERYTHING)
    assert not market.changes.quotes
    assert not market.changes


def test_quote_with_other_types_is_a_bad_message():
    """The connection ends, and the quote from before stays. The next connection asks for it anew."""
    market = Market()
    market.move("A")
    with pytest.raises(BadMessage, match="current_price"):
        market.move("A", current_price="dear")
    assert market.changes.quotes["A"].current_price == 1.0
    assert "A" not in market.document.quotes
