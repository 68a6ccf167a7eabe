"""All forms of messages lead to the same document, and prove the same versions."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quotestream.decoder import Decoder
from quotestream.document import Document
from quotestream.errors import BadMessage
from server.quotes.instrument import Instrument
from server.quotes.messages import QuotesPatch, encode
from server.quotes.patch import Add, difference, quote_pointer
from server.quotes.position import parse_position
from server.quotes.quote import Quote, opening_quote, quote_after
from server.quotes.update import TopOfBook, Trade, Update
from server.quotes.view import JSON, Form, QuoteChange
from tests.client.forms import EPOCH, Encoder, take
from tests.fanout.peer import START_US

FORMS = pytest.mark.parametrize("form", ["compact", "msgpack"])

INSTRUMENTS = [
    Instrument(symbol="AAPL", name="Apple Inc.", base_price=139.52),
    Instrument(symbol="7203.T", name="トヨタ", base_price=2500.0, price_decimals=0, currency="JPY"),
    Instrument(
        symbol="BTC/USD", name="~", base_price=1.234e-05, price_decimals=10, size_decimals=8
    ),
    Instrument(symbol="CLK0", name="Crude oil", type="FUTURE", base_price=-37.63),
]


@st.composite
def updates(draw: st.DrawFn, symbol: str) -> Update:
    """A trade, or a bid and ask."""
    price = st.floats(0.00001, 1e8 if symbol == "BTC/USD" else 1e6).map(
        lambda number: round(number, 5)
    )
    at = START_US + draw(st.integers(0, 10**9))
    if draw(st.booleans()):
        return Trade(
            symbol, draw(price), draw(st.integers(0, 1000)), draw(st.sampled_from((0, at))), at
        )
    bid, ask = draw(price), draw(price | st.none())
    return TopOfBook(symbol, bid, ask, draw(st.integers(0, 9)), None, at, at)


def opened(form: Form, **options: Any) -> tuple[Document, Decoder, Encoder]:
    """Return an empty document, and both ends of a connection whose schema the client has."""
    encoder = Encoder(form, **options)
    document = Document()
    decoder = Decoder(document, encoder.subprotocol, selected=bool(options))
    assert take(document, decoder, encoder.schema()) == []
    return document, decoder, encoder


def quote(price: float = 175.5, symbol: str = "AAPL") -> Quote:
    """Return a quote after one trade at `price`."""
    opening = opening_quote(Instrument(symbol=symbol, name="Apple Inc.", base_price=139.52))
    return quote_after(opening, Trade(symbol, price, 100, START_US, START_US), 2)


@FORMS
@given(data=st.data())
def test_all_forms_make_the_same_document(form, data):
    """Compact messages and JSON Patches of the same updates lead to equal quotes, to the last bit: the
    client computes change and percentage as the server does.
    """
    document, decoder, encoder = opened(form)
    patched = Document()
    instrument = data.draw(st.sampled_from(INSTRUMENTS))
    now, pointer = opening_quote(instrument, START_US), quote_pointer(instrument.symbol)
    add = QuotesPatch(START_US, {instrument.symbol: 1}, [Add(pointer, now)], EPOCH)
    patched.apply(json.loads(encode(add)))
    take(document, decoder, encoder.full(1, now, ts=START_US))
    for version, update in enumerate(data.draw(st.lists(updates(instrument.symbol))), 2):
        before = now
        now = quote_after(now, update, instrument.price_decimals, instrument.size_decimals)
        change = QuoteChange(now.symbol, pointer, version, update.ts, difference(before, now))
        assert patched.apply(json.loads(JSON.change(change, 0))) == []
        assert take(document, decoder, encoder.change(version, before, now, update.ts)) == []
    assert document.quotes == patched.quotes == {now.symbol: json.loads(encode(now))}
    assert document.position == patched.position


@FORMS
def test_quote_without_a_price_has_no_change(form):
    """Nothing is derived from a price that nobody knows, and no percentage from a base below zero."""
    document, decoder, encoder = opened(form)
    for number, instrument in enumerate(
        (
            Instrument(symbol="NEW", name="New", base_price=None),
            Instrument(symbol="CLK0", name="Crude oil", type="FUTURE", base_price=-37.63),
        )
    ):
        opening = opening_quote(instrument)
        take(document, decoder, encoder.full(number + 1, opening, ts=START_US))
        assert document.quotes[instrument.symbol] == json.loads(encode(opening))


@FORMS
def test_missed_version_needs_a_resync(form):
    """A change that skips a version is noticed once, and the position leaves the symbol out until its
    full quote comes.
    """
    document, decoder, encoder = opened(form)
    first, second = quote(175.0), quote(176.0)
    take(document, decoder, encoder.full(7, first, ts=START_US))
    assert take(document, decoder, encoder.change(9, first, second, START_US)) == ["AAPL"]
    assert take(document, decoder, encoder.change(10, second, first, START_US)) == []
    assert parse_position(document.position).versions == {}
    take(document, decoder, encoder.full(10, first, ts=START_US))
    assert parse_position(document.position).versions == {"AAPL": 10}


@FORMS
def test_chosen_fields_prove_their_versions_by_since(form):
    """A change of chosen fields names the update before it. It follows any held version from that one
    on, and a gap or a repetition needs a resync.
    """
    document, decoder, encoder = opened(form, fields=["current_price"])
    first, second = quote(175.0), quote(176.0)
    take(document, decoder, encoder.full(7, first, ts=START_US))
    assert document.quotes == {"AAPL": {"current_price": 175.0}}
    assert take(document, decoder, encoder.change((4, 9), first, second, START_US)) == []
    assert take(document, decoder, encoder.change((9, 15), second, first, START_US)) == []
    assert parse_position(document.position).versions == {"AAPL": 15}
    for since, version in ((16, 17), (5, 15), (3, 4)):
        take(document, decoder, encoder.full(15, first, ts=START_US))
        change = encoder.change((since, version), first, second, START_US)
        assert take(document, decoder, change) == ["AAPL"], (since, version)


def test_patch_of_chosen_fields_proves_its_version_by_since():
    """JSON Patch names the update before it in `since`."""
    document = Document()
    decoder = Decoder(document, None, selected=True)

    def message(version: int, operation: dict[str, Any], **more: Any) -> str:
        patch = {"type": "quotes_patch", "ts": 1, "operations": [operation]}
        return json.dumps(patch | {"versions": {"A": version}} | more)

    full = {"op": "add", "path": "/quotes/A", "value": {"current_price": 1.0}}
    move = {"op": "replace", "path": "/quotes/A/current_price", "value": 2.0}
    take(document, decoder, message(7, full, epoch=EPOCH))
    assert take(document, decoder, message(12, move, since={"A": 5})) == []
    assert take(document, decoder, message(20, move, since={"A": 13})) == ["A"]


@FORMS
def test_change_of_a_quote_that_is_not_held_needs_a_resync(form):
    """Without its full quote, a change makes no quote. The client asks once."""
    document, decoder, encoder = opened(form)
    first, second = quote(175.0), quote(176.0)
    assert take(document, decoder, encoder.change(9, first, second, START_US)) == ["AAPL"]
    assert take(document, decoder, encoder.change(10, second, first, START_US)) == []
    assert document.quotes == {}
    take(document, decoder, encoder.full(10, first, ts=START_US))
    assert document.quotes["AAPL"]["current_price"] == 175.0


@FORMS
def test_rows_of_one_message_build_on_each_other(form):
    """A message may have several changes of one symbol. Each follows the one before it."""
    document, decoder, encoder = opened(form)
    take(document, decoder, encoder.full(1, quote(175.0), ts=START_US))
    rows = [["AAPL", 2, 1, 180.0], ["AAPL", 3, 1, 139.52]]
    assert take(document, decoder, encoder.pack(["u", START_US, rows])) == []
    found = document.quotes["AAPL"]
    assert (found["change"], found["change_percent"]) == (0.0, 0.0)
    assert document.versions == {"AAPL": 3}


@FORMS
def test_removed_quotes_leave_nothing_behind(form):
    """Symbols that come and go take no memory, and a removed one is not resumed."""
    document, decoder, encoder = opened(form)
    for number in range(100):
        take(document, decoder, encoder.full(7, quote(symbol=f"S{number}"), ts=START_US))
        assert take(document, decoder, encoder.pack(["d", [f"S{number}"]])) == []
    assert (document.quotes, document.versions) == ({}, {})
    assert document._proven == set()


@FORMS
def test_what_a_later_server_adds_is_ignored(form):
    """Further kinds of arrays, elements, fields and derived fields do not disturb."""
    document, decoder, encoder = opened(form)
    schema = {
        "type": "schema",
        "fields": ["current_price", "mood"],
        "derived": ["spread", "change"],
    }
    later = [
        schema | {"more": 1},
        ["s", EPOCH, START_US, [["AAPL", 7, 3, 175.0, "calm", "extra"]], "extra"],
        ["z", 1],
        ["u", START_US, [["AAPL", 8, 2, "wild", "extra"]], "extra"],
        ["d", ["MSFT"], {}, "extra"],
    ]
    assert take(document, decoder, *map(encoder.pack, later)) == []
    expected = {"symbol": "AAPL", "current_price": 175.0, "mood": "wild", "change": None}
    assert document.quotes == {"AAPL": expected}
    assert document.versions == {"AAPL": 8}


@FORMS
def test_message_that_breaks_the_protocol_is_refused(form):
    """Neither form lets a wrong message through, nor an exception of a parser."""
    document, decoder, encoder = opened(form)
    row = ["AAPL", 1, 1]
    values: tuple[Any, ...] = (
        5,
        None,
        [],
        {},
        ["u"],
        ["u", 1, 2],
        ["u", 1, [row]],
        ["s", EPOCH, 1, [row]],
    )
    for wrong in values:
        with pytest.raises(BadMessage):
            take(document, decoder, encoder.pack(wrong))
    for broken in ("{", b"\xc1", b""):
        with pytest.raises(BadMessage):
            take(document, decoder, broken)
    assert document.quotes == {}
