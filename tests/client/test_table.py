"""The live table of `quotestream watch`."""

import json
from io import StringIO

from rich.console import Console

from server.client.document import Document
from server.client.table import Screen, print_message
from server.quotes.instrument import Instrument
from server.quotes.messages import Status, encode
from server.quotes.quote import Trade, opening_quote, quote_after
from tests.fanout.peer import START_US, instruments


def test_nothing_but_the_name_is_cut_in_80_columns():
    """A narrow terminal shows prices, time and version in full, in one line per symbol."""

    opening = opening_quote(Instrument(symbol="BRK.B", name="Berkshire " * 3, base_price=1000.0), 0)
    quote = quote_after(opening, Trade("BRK.B", 876.54, 123_456_789, START_US, START_US), 2)
    document = Document()
    value = json.loads(encode(quote))
    add = {"op": "add", "path": "/quotes/BRK.B", "value": value}
    message = {"type": "quotes_patch", "versions": {"BRK.B": 12345}, "operations": [add]}
    document.apply(message)
    screen, output = Screen(), StringIO()
    screen.update(document, message)
    Console(width=80, file=output).print(screen.draw())
    (line,) = (line for line in output.getvalue().splitlines() if "BRK.B" in line)
    for text in ("876.54", "-123.46", "-12.35", "123,456,789", "19:25:45.678", "12345", "Berk"):
        assert text in line


def test_brackets_are_no_markup():
    """Brackets in symbols, names and server messages are shown unchanged."""
    document, screen, output = Document(), Screen(), StringIO()
    instrument = Instrument(symbol="[RED]X", name="[/X]", base_price=1.0)
    value = json.loads(encode(opening_quote(instrument, START_US)))
    add = {"op": "add", "path": "/quotes/[RED]X", "value": value}
    message = {"type": "quotes_patch", "versions": {"[RED]X": 1}, "operations": [add]}
    document.apply(message)
    screen.update(document, message)
    screen.update(document, {"type": "error", "message": "no such symbol", "symbols": ["[/NO]"]})
    Console(width=100, file=output).print(screen.draw())
    assert all(text in output.getvalue() for text in ("[RED]X", "[/X]", "no such symbol: [/NO]"))


def test_prices_have_their_own_decimals(capsys):
    """Prices have at least two decimals, and a fraction of a cent is not 0.00, in both outputs."""
    for price, shown in (
        (0.0012, "0.0012"),
        (7.0, "7.00"),
        (1234.5, "1,234.50"),
        (1e-8, "0.00000001"),
    ):
        instrument = Instrument(symbol="X", name="X", base_price=price, price_decimals=8)
        value = json.loads(encode(opening_quote(instrument, START_US)))
        add = {"op": "add", "path": "/quotes/X", "value": value}
        message = {"type": "quotes_patch", "versions": {"X": 1}, "operations": [add]}
        document, screen, output = Document(), Screen(), StringIO()
        document.apply(message)
        screen.update(document, message)
        Console(width=120, file=output).print(screen.draw())
        print_message(document, message)
        assert f" {shown} " in output.getvalue()
        assert f" {shown} " in capsys.readouterr().out


def test_quiet_symbols_are_dim():
    """A symbol that does not trade is dim until it trades again."""
    document = Document()
    for instrument in instruments("AAPL", "MSFT"):
        quote = json.loads(encode(opening_quote(instrument, START_US)))
        path = f"/quotes/{instrument.symbol}"
        document.apply(
            {
                "versions": {instrument.symbol: 1},
                "operations": [{"op": "add", "path": path, "value": quote}],
            }
        )
    screen = Screen()
    for status, styles in (
        (Status("stale", "quiet", symbols=["MSFT"]), [None, "dim"]),
        (Status("live", "traded", symbols=["MSFT"]), [None, None]),
    ):
        screen.update(document, json.loads(encode(status)))
        assert [row.style for row in screen.draw().rows] == styles
