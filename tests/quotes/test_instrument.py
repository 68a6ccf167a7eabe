"""What can be quoted, at which price, and how its state passes from a catalogue to other instances."""

import math

import msgspec
import pytest

from server.quotes.instrument import (
    FIRST_SEEN_DECIMALS,
    FIRST_SEEN_SIZE_DECIMALS,
    MAX_PRICE,
    Instrument,
    first_seen,
    is_price,
    is_symbol,
)
from server.quotes.quote import from_microseconds, opening_quote, resumed_quote
from server.quotes.snapshot import live, opening_snapshot

FUND = Instrument(
    symbol="SPY",
    name="A fund",
    type="ETF",
    base_price=600.125,
    market_cap=5 * 10**11,
    price_decimals=3,
    made_up_price=True,
)

SHARE = Instrument(symbol="AAPL", name="Apple Inc.", base_price=175.5)


@pytest.mark.parametrize("instrument", [FUND, SHARE])
def test_snapshot_before_the_first_trade_is_the_instrument(instrument):
    """All reference data pass through it, and through what instances share."""
    snapshot = opening_snapshot(instrument)
    assert snapshot.instrument == instrument
    assert snapshot.last_quote == instrument.base_price
    assert (snapshot.volume, snapshot.version, snapshot.quoted_at) == (0, 1, 0)
    shared = live(snapshot, 77)
    assert shared.ts == 77
    assert shared.instrument == instrument
    assert msgspec.structs.astuple(shared)[:-3] == msgspec.structs.astuple(snapshot)


def test_categories_are_the_database_s():
    """Other services read the same rows."""
    assert opening_snapshot(SHARE).category == 1
    assert opening_snapshot(FUND).category == 2


def test_opening_quote_is_at_the_base_price():
    """Nothing was traded and nothing has changed."""
    quote = opening_quote(FUND, 5_000_000)
    assert msgspec.to_builtins(quote) == {
        "symbol": "SPY",
        "name": "A fund",
        "type": "ETF",
        "current_price": 600.125,
        "base_price": 600.125,
        "change": 0.0,
        "change_percent": 0.0,
        "last_updated": "1970-01-01T00:00:05Z",
        "volume": 0,
        "market_cap": 5 * 10**11,
        "currency": "USD",
        "open": None,
        "high": None,
        "low": None,
        "previous_close": None,
        "bid": None,
        "ask": None,
        "bid_size": None,
        "ask_size": None,
    }


def test_quote_goes_on_from_a_snapshot():
    """With the last price, all shares, and the last trade's own time."""
    taken = msgspec.structs.replace(
        opening_snapshot(FUND), last_quote=606.12625, volume=300, version=9, quoted_at=7_000_001
    )
    quote = resumed_quote(taken)
    assert (quote.current_price, quote.change, quote.change_percent) == (606.126, 6.001, 1.0)
    assert (quote.volume, quote.market_cap) == (300, 5 * 10**11)
    assert quote.last_updated == from_microseconds(7_000_001)


def test_symbol_that_a_feed_names_first_has_the_finest_tick():
    """Nothing else is known of it."""
    instrument = first_seen("NEW", 0.1234)
    assert instrument == Instrument(
        symbol="NEW",
        name="NEW",
        base_price=0.1234,
        price_decimals=FIRST_SEEN_DECIMALS,
        size_decimals=FIRST_SEEN_SIZE_DECIMALS,
    )
    assert (FIRST_SEEN_DECIMALS, FIRST_SEEN_SIZE_DECIMALS) == (4, 8)
    assert opening_quote(instrument, 0).current_price == 0.1234


@pytest.mark.parametrize(
    ("price", "decimals"), [(5.0, 4), (0.83525, 5), (1.234e-5, 8), (1e-12, 12), (175.92 + 3e-14, 4)]
)
def test_first_price_of_a_symbol_is_exact(price, decimals):
    """Its decimals are those of its symbol, four at least, twelve at most."""
    instrument = first_seen("NEW", price)
    assert instrument.price_decimals == decimals
    assert opening_quote(instrument, 0).current_price == pytest.approx(price, rel=1e-14)


@pytest.mark.parametrize(
    ("price", "decimals", "possible"),
    [
        (0.01, 2, True), (0.006, 2, True), (0.004, 2, False), (0.004, 3, True), (0.0, 2, False),
        (-1.0, 2, False), (0.4, 0, False), (1.0, 0, True), (MAX_PRICE, 2, True),
        (MAX_PRICE + 1, 2, False), (math.nan, 2, False), (math.inf, 2, False),
    ],
)  # a table # fmt: skip
def test_price_is_at_least_a_tick(price, decimals, possible):
    """And not beyond all there have been."""
    assert is_price(price, decimals) is possible


@pytest.mark.parametrize(
    ("text", "possible"),
    [("A", True), ("A" * 50, True), ("A" * 51, False), ("", False), ("*", False), ("A\n", False)],
)
def test_symbol_has_up_to_fifty_characters(text, possible):
    """All of them printable; `*` means all symbols."""
    assert is_symbol(text) is possible
