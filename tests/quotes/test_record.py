"""The check of records that every source of values shares."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.quotes.instrument import LARGEST_WHOLE, MAX_DECIMALS
from server.quotes.quote import (
    from_microseconds,
    opening_quote,
    quote_after,
    resumed_quote,
    to_microseconds,
)
from server.quotes.record import (
    MAX_RECORD_BYTES,
    BadRecord,
    Decoder,
    filed_under,
    read_row,
    read_symbol,
)
from server.quotes.snapshot import LATEST_US, LiveSnapshot, Snapshot, live
from server.quotes.update import Trade, merged

FIELDS = Snapshot.__struct_fields__

GOOD = Snapshot("AAPL", "Apple Inc.", 1, 175.5, 170.0, 2 * 10**12, 2, False, 300, 7, 10**15)

LARGEST = Snapshot(
    "A" * 50,
    "x" * 200,
    2**31 - 1,
    1.8e14,
    1.8e14,
    LARGEST_WHOLE,
    MAX_DECIMALS,
    True,
    LARGEST_WHOLE,
    LARGEST_WHOLE,
    LATEST_US,
)

anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(),
    st.sampled_from(
        [2**53 - 1, 2**53, 2**62, 2**63 - 1, 2**63, 2**64, -1, LATEST_US, LATEST_US + 1]
    ),
    st.lists(st.integers(), max_size=2),
)


def row(**changed: object) -> list[object]:
    return list((msgspec.structs.asdict(GOOD) | changed).values())


def test_whole_range_is_taken():
    """A row at every bound is a snapshot, also as JSON, and gives a quote."""
    for snapshot in (GOOD, LARGEST):
        assert read_row(msgspec.structs.astuple(snapshot)) == snapshot
        encoded = msgspec.json.encode(snapshot)
        assert filed_under(snapshot.symbol, Decoder(Snapshot, "json").decode(encoded)) == snapshot
        msgspec.json.encode(resumed_quote(snapshot))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("volume", 2**53),
        ("volume", 2**63 - 1),
        ("volume", -1),
        ("volume", 1.5),
        ("volume", "7"),
        ("version", 2**53),
        ("version", 0),
        ("version", True),
        ("version", None),
        ("quoted_at", LATEST_US + 1),
        ("quoted_at", -1),
        ("price_decimals", 13),
        ("price_decimals", 32767),
        ("price_decimals", -1),
        ("last_quote", math.nan),
        ("last_quote", math.inf),
        ("last_quote", -0.01),
        ("last_quote", 1.8e14 + 1),
        ("last_quote", b"7"),
        ("last_quote", None),
        ("base_price", 0.0),
        ("base_price", math.inf),
        ("market_cap", 2**53),
        ("market_cap", "1"),
        ("category", 2**31),
        ("made_up_price", 1),
        ("made_up_price", None),
        ("name", None),
        ("name", "x" * 201),
        ("name", "a\0b"),
        ("name", "\ud800"),
        ("name", b"\xff"),
        ("symbol", ""),
        ("symbol", "aapl"),
        ("symbol", " AAPL"),
        ("symbol", "*"),
        ("symbol", "A\nB"),
        ("symbol", "A" * 51),
        ("symbol", None),
        ("symbol", b"AAPL"),
        ("symbol", "\ud800"),
    ],
)
def test_row_beyond_the_bounds_is_not_a_record(field, value):
    """The problem is one line, which names the field if its type is at fault."""
    with pytest.raises(BadRecord) as bad:
        read_row(row(**{field: value}))
    assert "\n" not in str(bad.value)
    assert field in str(bad.value)


@given(st.sampled_from(FIELDS), anything)
def test_any_value_in_any_field_is_a_record_or_bad(field, value):
    """Only BadRecord is raised. Accepted values give a quote and can be encoded."""
    try:
        snapshot = read_row(row(**{field: value}))
    except BadRecord:
        return
    for quote in (resumed_quote(snapshot), opening_quote(snapshot.instrument, snapshot.quoted_at)):
        msgspec.json.encode(quote)
        msgspec.json.encode(quote_after(quote, Trade("AAPL", 1.0, 10**12, LATEST_US, 0), 2))


@given(
    st.binary()
    | st.text().map(str.encode)
    | st.recursive(anything, st.lists).map(repr).map(str.encode)
)
def test_any_message_is_a_record_or_bad(data):
    """The decoder's own errors are never raised, for any message."""
    for decoder in (Decoder(LiveSnapshot, "json"), Decoder(LiveSnapshot, "msgpack")):
        with pytest.raises(BadRecord):
            decoder.decode(data)


@pytest.mark.parametrize(
    "data",
    [
        b'{"symbol":"\xff"}',
        b'{"x":' + b"[" * 15_000,
        b"\xff",
        b"",
        b"1" * MAX_RECORD_BYTES,
        b" " * (MAX_RECORD_BYTES + 1),
    ],
)
def test_message_that_decoders_fail_on_is_bad(data):
    """Text that is not UTF-8 and endless nesting, which raise other errors in msgspec, are bad too."""
    with pytest.raises(BadRecord):
        Decoder(LiveSnapshot, "json").decode(data)


def test_snapshot_is_filed_under_its_own_symbol():
    """A snapshot under another symbol's key is bad, as it would replace that symbol's."""
    assert filed_under("AAPL", GOOD) is GOOD
    with pytest.raises(BadRecord, match="another symbol, AAPL"):
        filed_under("MSFT", GOOD)
    with pytest.raises(BadRecord, match="upper case"):
        filed_under("aapl", msgspec.structs.replace(GOOD, symbol="aapl"))


@pytest.mark.parametrize("symbol", ["BTC/USD", "EURUSD=X", "^GSPC", "7203.T", "BRK.B", "É", "A~B"])
def test_symbols_of_every_kind_are_symbols(symbol):
    """Symbols with unusual characters are accepted unchanged."""
    assert read_symbol(symbol) == symbol


def test_volume_stays_at_its_largest():
    """Valid trades cannot make the volume larger than a JSON reader can hold."""
    quote = resumed_quote(msgspec.structs.replace(GOOD, volume=LARGEST_WHOLE - 10))
    quote = quote_after(quote, Trade("AAPL", 176.0, 1000, 10**15, 0), 2)
    assert quote.volume == LARGEST_WHOLE
    assert quote_after(quote, Trade("AAPL", 177.0, 1000, 10**15, 0), 2).volume == LARGEST_WHOLE
    many = merged(Trade("AAPL", 177.0, 1000, 10**15, 0), Trade("AAPL", 178.0, 1000, 10**15, 0))
    assert quote_after(quote, many, 2).volume == LARGEST_WHOLE


@given(st.integers(0, LATEST_US))
def test_times_are_exact(time_us):
    """Times are exact up to the last microsecond of the year 9999, where a float of seconds is not."""
    assert to_microseconds(from_microseconds(time_us)) == time_us


def test_bad_values_are_named():
    """The log says what is wrong in one line, and how much too long a message is."""
    with pytest.raises(BadRecord, match=r"^the symbol is int, not text$"):
        read_symbol(7)
    with pytest.raises(BadRecord, match=r"^not a symbol$"):
        read_symbol("*")
    with pytest.raises(BadRecord, match=r"^not a symbol$"):
        read_symbol("")
    with pytest.raises(BadRecord, match=r"^5 bytes are more than 4$"):
        Decoder(LiveSnapshot, "json", 4).decode(b"12345")
    with pytest.raises(BadRecord, match="Expected `object`, got `int`"):
        Decoder(LiveSnapshot, "json").decode(b"7")


@pytest.mark.parametrize(("form", "encode"), [("json", msgspec.json), ("msgpack", msgspec.msgpack)])
def test_message_is_read_in_its_form(form, encode):
    """Up to the very size that is allowed; the other form is bad."""
    snapshot = live(GOOD, 10**15)
    data = encode.encode(snapshot)
    assert Decoder(LiveSnapshot, form, len(data)).decode(data) == snapshot
    with pytest.raises(BadRecord):
        Decoder(LiveSnapshot, form, len(data) - 1).decode(data)
    with pytest.raises(BadRecord):
        Decoder(LiveSnapshot, form).decode(encode.encode([1]))
    other = msgspec.msgpack if form == "json" else msgspec.json
    with pytest.raises(BadRecord):
        Decoder(LiveSnapshot, form).decode(other.encode(snapshot))


@pytest.mark.parametrize(
    ("last", "base", "decimals", "expected"),
    [
        (0.30000000000000004, 175.92000000000002, 2, (0.3, 175.92, 2)),
        (0.00001234, 0.00001234, 2, (0.00001234, 0.00001234, 8)),
        (1.23456, 1.2, 2, (1.23456, 1.2, 5)),
        (0.0, 100.0, 0, (0.0, 100.0, 0)),
        (123456.789, 123456.789, 2, (123456.789, 123456.789, 3)),
        (1e-12, 1e-12, 2, (1e-12, 1e-12, 12)),
    ],
)
def test_prices_of_a_row_are_whole_ticks(last, base, decimals, expected):
    """A float's noise goes, and a price that another service wrote keeps its decimals."""
    row = read_row(("A", "A", 1, last, base, None, decimals, False, 0, 1, 0))
    assert (row.last_quote, row.base_price, row.price_decimals) == expected


def test_base_price_below_the_smallest_tick_is_none():
    """Rounded it would be 0, of which nothing is a percentage."""
    with pytest.raises(BadRecord, match=r"^the base price is below 10\^-12$"):
        read_row(("A", "A", 1, 0.0, 1e-13, None, 2, False, 0, 1, 0))
