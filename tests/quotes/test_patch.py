"""The operations sent to clients, applied by an independent library, give the server's quote."""

import json
import re
from typing import Any

import jsonpatch
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.quotes.instrument import MAX_SYMBOL_LENGTH, Instrument, first_seen
from server.quotes.messages import QuotesPatch, encode
from server.quotes.patch import (
    MOVING_FIELDS,
    Add,
    Replace,
    difference,
    quote_pointer,
    replacements,
)
from server.quotes.quote import Quote, opening_quote, quote_after
from server.quotes.update import Trade

YEAR_9999_US = 253_402_300_799_999_999

prices = st.floats(0.0001, 1e6, allow_nan=False)
trades = st.builds(
    Trade,
    symbol=st.just("X"),
    price=prices,
    size=st.integers(0, 10**12),
    time_us=st.integers(0, YEAR_9999_US),
    ts=st.integers(0, YEAR_9999_US),
)
symbols = st.text(min_size=1, max_size=MAX_SYMBOL_LENGTH).filter(
    lambda text: not any("\ud800" <= letter <= "\udfff" for letter in text)
)
instruments = st.builds(
    Instrument,
    symbol=symbols,
    name=st.just("A name"),
    base_price=prices.filter(lambda price: price >= 0.01),
    market_cap=st.none() | st.integers(1, 10**13),
    price_decimals=st.sampled_from([2, 4]),
)


def patch(pointer: str, before: Quote, quote: Quote) -> list[Replace]:
    """Return the operations between two quotes."""
    changed = difference(before, quote)
    return replacements(pointer, changed.fields, changed.values)


def on_the_wire(quote: Quote) -> dict[str, Any]:
    """Return the quote as a client's JSON parser reads it."""
    value: dict[str, Any] = json.loads(encode(quote))
    return value


def apply(document: dict[str, Any], operations: Any) -> str:
    """Send operations in the real message, apply them, and return the message's text."""
    text = encode(QuotesPatch(0, {"X": 1}, operations)).decode()
    jsonpatch.apply_patch(document, json.loads(text)["operations"], in_place=True)
    return text


@given(instruments, st.lists(trades, max_size=20))
def test_patches_give_the_quote(instrument, sequence):
    """After any sequence of trades the document holds the quote. Only changed fields were sent, the
    same ones that jsonpatch itself would send.
    """
    quote = opening_quote(instrument, 0)
    pointer = quote_pointer(instrument.symbol)
    document: dict[str, Any] = {"quotes": {}}
    apply(document, [Add(pointer, quote)])
    for trade in sequence:
        before, quote = quote, quote_after(quote, trade, instrument.price_decimals)
        operations = patch(pointer, before, quote)
        oracle = jsonpatch.make_patch(on_the_wire(before), on_the_wire(quote)).patch
        changed = {operation["path"].removeprefix("/") for operation in oracle}
        sent = {operation.path.removeprefix(f"{pointer}/") for operation in operations}
        assert sent == changed
        apply(document, operations)
        assert document == {"quotes": {instrument.symbol: on_the_wire(quote)}}


@given(st.lists(symbols, min_size=1, max_size=5, unique=True))
def test_symbols_of_any_letters_survive(names):
    """Each symbol's pointer leads to its own quote, with any characters."""
    document: dict[str, Any] = {"quotes": {}}
    for name in names:
        apply(document, [Add(quote_pointer(name), opening_quote(first_seen(name, 5.0), 0))])
    assert {name: quote["symbol"] for name, quote in document["quotes"].items()} == {
        name: name for name in names
    }


@pytest.mark.parametrize(
    ("symbol", "pointer"),
    [
        ("A/B", "/quotes/A~1B"),
        ("A~B", "/quotes/A~0B"),
        ("~1", "/quotes/~01"),
        ("BRK.B", "/quotes/BRK.B"),
    ],
)
def test_pointers_are_escaped(symbol, pointer):
    """RFC 6901 §3: `~` first, then `/`."""
    assert quote_pointer(symbol) == pointer


@given(instruments, st.lists(trades, min_size=1, max_size=5))
def test_no_price_is_finer_than_the_tick(instrument, sequence):
    """No number on the wire has a binary fraction's rounding error or is a negative zero."""
    quote = opening_quote(instrument, 0)
    for trade in sequence:
        before, quote = quote, quote_after(quote, trade, instrument.price_decimals)
        text = encode(patch("/quotes/X", before, quote)).decode()
        for field, limit in (
            ("current_price", instrument.price_decimals),
            ("change", instrument.price_decimals),
            ("change_percent", 4),
        ):
            for number in re.findall(rf'"/quotes/X/{field}","value":([^}}]+)', text):
                assert number not in ("-0.0", "-0")
                if "e" not in number:  # a ten-millionth of a dollar, or a million percent
                    assert len(number.partition(".")[2]) <= max(1, limit)


def test_change_is_counted_from_the_base_price():
    """A quote has the change in dollars and percent, the summed volume and the trade's time."""
    instrument = Instrument(symbol="X", name="X", base_price=175.5)
    trade = Trade("X", 175.92, 300, 1_764_012_349_678_901, 0)
    quote = quote_after(opening_quote(instrument, 0), trade, 2)
    assert on_the_wire(quote) == {
        "symbol": "X",
        "name": "X",
        "type": "STOCK",
        "current_price": 175.92,
        "base_price": 175.5,
        "change": 0.42,
        "change_percent": 0.2393,
        "last_updated": "2025-11-24T19:25:49.678901Z",
        "volume": 300,
        "market_cap": None,
        "currency": "USD",
        "open": 175.92,
        "high": 175.92,
        "low": 175.92,
        "previous_close": None,
        "bid": None,
        "ask": None,
        "bid_size": None,
        "ask_size": None,
    }


def test_base_price_of_zero_has_no_percentage():
    """A base price below its tick, which a catalogue may hold, does not fail."""
    instrument = Instrument(symbol="X", name="X", base_price=0.001)
    quote = quote_after(opening_quote(instrument, 0), Trade("X", 5.0, 100, 7, 8), 2)
    assert (quote.base_price, quote.change, quote.change_percent) == (0.0, 5.0, None)


def test_tiny_fall_is_no_negative_zero():
    """A cent less of a million dollars does not change the percentage."""
    opening = opening_quote(first_seen("X", 1e6), 7)
    quote = quote_after(opening, Trade("X", 1e6 - 0.01, 100, 7, 8), 2)
    assert (str(quote.change), str(quote.change_percent)) == ("-0.01", "0.0")


def test_a_trade_that_changes_nothing_is_no_operation():
    """A trade with the same price and time and without shares makes no operation."""
    quote = quote_after(opening_quote(first_seen("X", 5.0), 7), Trade("X", 5.0, 0, 7, 8), 4)
    assert difference(quote, quote_after(quote, Trade("X", 5.00001, 0, 7, 9), 4)).fields == ()


def test_only_an_update_s_fields_can_move():
    """Fields that `difference` ignores are fixed when an instrument is listed."""
    fixed = {"symbol", "name", "type", "base_price", "market_cap", "currency", "previous_close"}
    assert set(Quote.__struct_fields__) == fixed | set(MOVING_FIELDS)
