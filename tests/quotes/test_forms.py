"""Each form's messages of one change, byte by byte, and the table of them in docs/forms.md."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec.structs import replace

from server.fanout.frame import message_frame
from server.quotes.compact import SENT, CompactView
from server.quotes.instrument import Instrument
from server.quotes.messages import Ack, Message, Pong, Status
from server.quotes.patch import difference, quote_pointer
from server.quotes.quote import Quote, opening_quote, quote_after
from server.quotes.update import TopOfBook, Trade
from server.quotes.view import FIELDS, FORMS, JSON, JsonView, QuoteChange, Removal, View
from tests.forms import FormDocument, unpack

TS = 1_764_012_349_678_901

APPLE = Instrument(symbol="AAPL", name="Apple Inc.", base_price=175.5, market_cap=2_800_000_000_000)

START = replace(
    quote_after(opening_quote(APPLE), Trade("AAPL", 175.88, 50_000_000, TS - 4_000_000, TS), 2),
    high=178.2,
    low=174.1,
)

PRICE = ("current_price",)

DOCUMENT = Path(__file__).parents[2] / "docs" / "forms.md"


def shown(quote: Quote, version: int, epoch: str = "1764012345678.9f86d081") -> Any:
    """Return a quote as a topic shows it."""
    return SimpleNamespace(
        symbol=quote.symbol,
        pointer=quote_pointer(quote.symbol),
        quote=quote,
        version=version,
        ts=TS,
        epoch=epoch,
    )


def change(quote: Quote, version: int = 1043) -> QuoteChange:
    """Return the change from START to `quote`."""
    return QuoteChange("AAPL", "/quotes/AAPL", version, TS, difference(START, quote))


def view_of(form: str, fields: tuple[str, ...] | None) -> View:
    return JsonView(fields) if form == "json" else CompactView(cast("Any", form), fields)


TRADED = quote_after(START, Trade("AAPL", 175.92, 100, TS - 1200, TS), 2)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("fields", [None, PRICE])
def test_bytes_of_a_change(form, fields):
    """docs/forms.md tells the real size of a change's frame, with its header."""
    view = view_of(form, fields)
    size = len(message_frame(view.change(change(TRADED), 1040), view))
    row = [f"`{form}`", "`fields=current_price`" if fields else "all"]
    found = re.search(rf"^\| {row[0]} \| {row[1]} \| (\d+) \|", DOCUMENT.read_text(), re.MULTILINE)
    assert found, row
    assert int(found[1]) == size


def test_documented_schema_is_the_real_one():
    """docs/forms.md shows the schema as it is sent."""
    assert f"\n{CompactView('compact').opening().decode()}\n" in DOCUMENT.read_text()


def test_change_to_the_letter():
    """A mask's lowest bit is the schema's first field, and a time is relative to `ts`."""
    payload = CompactView("compact").change(change(TRADED), 0)
    assert payload == b'["u",1764012349678901,[["AAPL",1043,7,175.92,50000100,-1200]]]'
    payload = CompactView("compact", PRICE).change(change(TRADED), 1040)
    assert payload == b'["u",1764012349678901,[["AAPL",[1040,1043],1,175.92]]]'
    assert unpack(CompactView("msgpack").change(change(TRADED), 0)) == [
        "u",
        TS,
        [["AAPL", 1043, 7, 175.92, 50_000_100, -1200]],
    ]
    payload = JsonView(PRICE).change(change(TRADED), 1040)
    assert payload == (
        b'{"type":"quotes_patch","ts":1764012349678901,"versions":{"AAPL":1043},"operations":[{"op":'
        b'"replace","path":"/quotes/AAPL/current_price","value":175.92}],"since":{"AAPL":1040}}'
    )


def test_absolute_values_of_a_book():
    """A book's fields are higher bits, and a side without a price is null."""
    book = quote_after(START, TopOfBook("AAPL", None, 176.1, None, 300, TS, TS), 2)
    before = replace(START, bid=175.9, bid_size=200)
    changed = QuoteChange("AAPL", "/quotes/AAPL", 9, TS, difference(before, book))
    _, _, [[_, _, mask, *values]] = unpack(CompactView("msgpack").change(changed, 0))
    fields = [field for bit, field in enumerate(SENT) if mask >> bit & 1]
    assert dict(zip(fields, values, strict=True)) == {
        "bid": None,
        "ask": 176.1,
        "bid_size": None,
        "ask_size": 300,
    }


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("fields", [None, FIELDS, ("volume", "change_percent", "symbol")])
def test_every_form_says_the_same(form, fields):
    """A full quote, a change and a removal lead an independent client to the same quotes."""
    view, document = view_of(form, fields), FormDocument(form, ",".join(fields or ()))
    if opening := view.opening():
        document.read(2 if view.binary else 1, opening)
    later = quote_after(TRADED, Trade("AAPL", 175.9199999, 0, 0, TS), 2)
    other = opening_quote(replace(APPLE, symbol="B/R", base_price=None))
    plain = FormDocument("json")
    for each, reader in ((JSON, plain), (view, document)):
        opcode = 2 if each.binary else 1
        reader.read(opcode, each.full([shown(START, 1042), shown(other, 1)]))
        reader.read(opcode, each.change(change(TRADED), 1041))
        second = QuoteChange("AAPL", "/quotes/AAPL", 1044, TS, difference(TRADED, later))
        if each.shows(second.difference.fields):
            reader.read(opcode, each.change(second, 1043))
        reader.read(opcode, each.full([shown(later, 1044)]))
        assert reader.epoch == "1764012345678.9f86d081"
    assert document.quotes == {
        symbol: {field: quote[field] for field in fields or quote}
        for symbol, quote in plain.quotes.items()
    }
    document.read(2 if view.binary else 1, view.removal(Removal([shown(later, 1044)], TS)))
    assert document.quotes.keys() == {"B/R"}


def test_renamed_symbol_is_named():
    """`d` names the new symbol behind the old one; the full quote follows."""
    view = CompactView("compact")
    new = replace(START, symbol="META")
    gone = Removal([shown(START, 5)], TS, successor=shown(new, 6))
    taken, given = view.replacement(gone, shown(new, 6))
    assert taken == b'["d",["AAPL"],{"AAPL":"META"}]'
    assert given.startswith(b'["s","1764012345678.9f86d081",1764012349678901,[["META",6,')


def test_messages_about_no_quote_are_objects():
    """They are the same in each form, and times are text."""
    opening = datetime(2026, 11, 27, 14, 30, tzinfo=UTC)
    closed = Status("closed", "the session has ended", next_open=opening)
    messages: list[Message] = [Ack("subscribe", ["AAPL"], 7), Pong(1, "x"), closed, {"t": opening}]
    for message in messages:
        expected = JSON.encode(message)
        assert CompactView("compact").encode(message) == expected
        assert unpack(CompactView("msgpack").encode(message)) == json.loads(expected)
