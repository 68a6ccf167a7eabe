"""The live table of `quotestream watch`."""

import json
from io import StringIO
from itertools import pairwise

import pytest
import trio
from rich.console import Console
from rich.live import Live

from server.client.document import Document
from server.client.keys import Key, parse_keys
from server.client.lines import print_message
from server.client.painting import redraw
from server.client.table import Screen
from server.pacing import wait_until
from server.quotes.instrument import Instrument
from server.quotes.messages import Status, encode
from server.quotes.quote import opening_quote, quote_after
from server.quotes.update import TopOfBook, Trade
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
    Console(width=80, file=output).print(screen)
    (line,) = (line for line in output.getvalue().splitlines() if "BRK.B" in line)
    for text in ("876.54", "-123.46", "-12.35", "123,456,789", "19:25:45.678", "12345", "Berk"):
        assert text in line


def test_book_is_shown_if_it_is_known(capsys):
    """A base price that is not above zero has no percentage, and a symbol without a book no columns."""
    oil = Instrument(symbol="CLK0", name="Crude oil", type="FUTURE", base_price=-37.63)
    quote = quote_after(
        opening_quote(oil, START_US), TopOfBook("CLK0", -3.5, None, 1, None, 1, 1), 2
    )
    document, screen, output = Document(), Screen(), StringIO()
    add = {"op": "add", "path": "/quotes/CLK0", "value": json.loads(encode(quote))}
    message = {"type": "quotes_patch", "versions": {"CLK0": 2}, "operations": [add]}
    document.apply(message)
    screen.update(document, message)
    Console(width=120, file=output).print(screen)
    heading, line = (
        line for line in output.getvalue().splitlines() if "bid" in line or "CL" in line
    )
    assert "-3.50" in line
    assert "%" not in heading
    assert "ask" not in heading
    print_message(document, message)
    assert "-37.63" in (line := capsys.readouterr().out)
    assert "bid -3.50 ask -" in line


def test_fields_that_were_asked_for_are_shown(capsys):
    """Each has its name if it has no place of its own, and a hyphen if it is not known."""
    fields = ("name", "change", "low", "high", "bid_size", "market_cap", "volume")
    values = ("Apple Inc.", -0.5, None, 1176.5, 1e-06, 10**9, 2.5e-07)
    value = dict(zip(fields, values, strict=True))
    document, screen, output = Document(), Screen(fields), StringIO()
    add = {"op": "add", "path": "/quotes/AAPL", "value": value}
    message = {"type": "quotes_patch", "versions": {"AAPL": 2}, "operations": [add]}
    document.apply(message)
    print_message(document, message, fields)
    volume, _, others = capsys.readouterr().out.partition("  name ")
    assert volume.split() == ["-", "AAPL", "0.00000025"]
    assert others == (
        "Apple Inc.  change -0.50  low -  high 1,176.50  bid_size 0.000001  market_cap 1,000,000,000\n"
    )
    screen.update(document, message)
    Console(width=120, file=output).print(screen)
    (line,) = (line for line in output.getvalue().splitlines() if "AAPL" in line)
    assert line.split("Apple")[0].split() == (
        ["AAPL", "-0.50", "0.00000025", "2", "1,176.50", "0.000001", "1,000,000,000"]
    )


def test_book_before_the_first_price(capsys):
    """Neither price nor change are shown, as nobody knows them."""
    new = Instrument(symbol="NEW", name="Newcomer", base_price=None)
    quote = quote_after(opening_quote(new), TopOfBook("NEW", 3.5, 3.75, 1, 1, 1, 1), 2)
    document, screen, output = Document(), Screen(), StringIO()
    add = {"op": "add", "path": "/quotes/NEW", "value": json.loads(encode(quote))}
    message = {"type": "quotes_patch", "versions": {"NEW": 2}, "operations": [add]}
    document.apply(message)
    screen.update(document, message)
    Console(width=120, file=output).print(screen)
    assert "3.75" in output.getvalue()
    print_message(document, message)
    assert "bid 3.50 ask 3.75" in capsys.readouterr().out


def shown(width: int, height: int, count: int, *pressed: Key) -> list[str]:
    """Return the lines of a terminal of this size that shows `count` symbols, after some keys."""
    document, screen, output = Document(), Screen(), StringIO()
    operations, versions = [], {}
    for number in range(count):
        instrument = Instrument(symbol=f"S{number:03}", name=f"Company {number}", base_price=1234.5)
        quote = quote_after(
            opening_quote(instrument, START_US),
            Trade(instrument.symbol, 1240.25, 1_234_567, START_US, START_US),
            2,
        )
        path = f"/quotes/{instrument.symbol}"
        operations.append({"op": "add", "path": path, "value": json.loads(encode(quote))})
        versions[instrument.symbol] = 12345
    message = {"type": "quotes_patch", "versions": versions, "operations": operations}
    document.apply(message)
    screen.update(document, message)
    console = Console(width=width, height=height, file=output)
    console.print(screen)
    for key in pressed:
        output.seek(0)
        output.truncate()
        screen.cursor.move(key)
        console.print(screen)
    return output.getvalue().splitlines()


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120, 200])
@pytest.mark.parametrize("count", [1, 20, 100, 513])
def test_table_fits_any_terminal(width, count):
    """Prices are whole at any width, and the state is always in sight."""
    lines = shown(width, 24, count)
    assert len(lines) <= 24
    assert max(map(len, lines)) <= width
    rows = [line for line in lines if line.lstrip().startswith("S") and "symbol" not in line]
    assert len(rows) == min(count, 20)
    assert all("1,240.25" in row for row in rows)
    assert "live" in lines[-1] or lines[-1].startswith("1-20 of")
    assert any("updated" in line for line in lines) is (width >= 60)
    assert any("Company" in line for line in lines) is (width >= 80)


class Frames(Live):
    """A terminal that notes when it is drawn."""

    def __init__(self) -> None:
        super().__init__(console=Console(file=StringIO()), auto_refresh=False)
        self.times: list[float] = []

    def refresh(self) -> None:
        self.times.append(trio.current_time())


async def test_table_is_redrawn_ten_times_a_second_at_most(nursery, autojump_clock):
    """Of two hundred messages in a second, the first and the last are drawn, too."""
    screen, frames = Screen(), Frames()
    nursery.start_soon(redraw, screen, frames)
    begun = trio.current_time()
    for _ in range(200):
        last = trio.current_time()
        screen.update(Document(), {"type": "quotes_patch", "versions": {}})
        await trio.sleep(0.005)
    with trio.fail_after(10):
        await wait_until(lambda: frames.times[-1] >= last)
    assert len(frames.times) in (10, 11)
    assert frames.times[0] == begun
    assert min(after - before for before, after in pairwise(frames.times)) + 1e-9 >= 0.1
    assert begun + 0.995 <= frames.times[-1] + 1e-9 <= begun + 1.1


def test_keys_scroll():
    """By line, by page, to both ends, and not beyond them."""
    for keys, first in (
        ((), 0),
        ((Key.DOWN,), 1),
        ((Key.UP,), 0),
        ((Key.PAGE_DOWN,), 20),
        ((Key.PAGE_DOWN, Key.PAGE_UP, Key.DOWN), 1),
        ((Key.END,), 80),
        ((Key.END, Key.DOWN), 80),
        ((Key.END, Key.HOME), 0),
    ):
        lines = shown(80, 24, 100, *keys)
        assert f"S{first:03}" in lines[2]
        assert lines[-1].strip().startswith(f"{first + 1}-{first + 20} of 100  live")


def test_keys_of_terminals():
    """Whole sequences, several at once, and none for what is unknown."""
    assert list(parse_keys(b"\x1b[A\x1bOBjq\x1b[6~x\x1b[99~")) == [
        Key.UP,
        Key.DOWN,
        Key.DOWN,
        Key.QUIT,
        Key.PAGE_DOWN,
    ]


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
    Console(width=100, file=output).print(screen)
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
        Console(width=120, file=output).print(screen)
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
        assert [row.style for row in screen.draw(120, 24).rows] == styles
