"""A live table of quotes in the terminal; plain lines if the output is not a terminal."""

import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import partial
from typing import Any, Literal, NamedTuple

import trio
from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from server.client.document import Document
from server.client.keys import Key, keys, unbuffered_keys
from server.client.stream import StreamRefused, follow
from server.quotes.view import Form

REDRAW_INTERVAL = 0.1
"""Seconds between two redraws at least."""

FRAME_LINES = 4
"""Lines of the table that are not rows: two of the header, a blank one, the state."""

GAP = 2
"""Columns of the terminal between two of the table."""

NARROWEST_NAME = 8
"""Columns below which the name is left out."""


async def watch(
    url: str, token: str, symbols: Sequence[str], format: Form | None, fields: Sequence[str]
) -> None:
    """Show the quotes until cancelled, or until the user quits. `format` and `fields` are those of
    `follow`. Errors: StreamRefused.
    """
    show = partial(follow, url, token, symbols, format=format, fields=fields)
    console = Console()
    if not sys.stdout.isatty() or console.is_dumb_terminal:
        await show(partial(print_message, fields=fields))
    screen = Screen(fields)
    live = Live(screen, console=console, auto_refresh=False)
    with unbuffered_keys() as has_keys, live:
        try:
            async with trio.open_nursery() as tasks:
                tasks.start_soon(redraw, screen, live)
                if has_keys:
                    tasks.start_soon(_scroll, screen, tasks.cancel_scope)
                await show(screen.update)
        except* StreamRefused as refusals:
            refusal = refusals.exceptions[0]
            raise refusal from None


async def redraw(screen: "Screen", live: Live) -> None:
    """Draw what has changed, at most once in REDRAW_INTERVAL."""
    while True:
        await screen.changed.wait()
        screen.changed = trio.Event()
        live.refresh()
        await trio.sleep(REDRAW_INTERVAL)


async def _scroll(screen: "Screen", scope: trio.CancelScope) -> None:
    async for key in keys():
        if key is Key.QUIT:
            scope.cancel()
        screen.scroll(key)


def print_message(document: Document, message: dict[str, Any], fields: Sequence[str] = ()) -> None:
    """Print a line for each changed quote, or for a message of another type. If the client chose its
    `fields`, a line leaves out the others. Those without a place of their own come last, with their
    names.
    """
    if message["type"] != "quotes_patch":
        # `recovered` may name hundreds of symbols, so count them by result.
        if "recovered" in message:
            message = message | {"recovered": dict(Counter(message["recovered"].values()))}
        print(json.dumps(message, ensure_ascii=False), flush=True)
        return
    for symbol in message["versions"]:
        if symbol in document.quotes:
            quote = document.quotes[symbol]
            updated = quote.get("last_updated") or "-"
            percent = f"{_percent(quote):>9} %" if "change_percent" in quote else ""
            print(
                f"{updated[:23]:<24}{symbol:<8}{_price(quote.get('current_price')):>12}"
                f"{percent}{_volume(quote):>15}{_book(quote)}{_others(quote, fields)}".rstrip(),
                flush=True,
            )


class Column(NamedTuple):
    """A column of the table: its heading, and its cell for each symbol, quote and version."""

    heading: str
    cell: Callable[[str, dict[str, Any], int], Text]
    justify: Literal["left", "right"] = "right"

    def width(self, cells: Sequence[Text]) -> int:
        """Return the widest of the heading and `cells`."""
        return max([len(self.heading), *(cell.cell_len for cell in cells)])


def _coloured(text: str, quote: dict[str, Any]) -> Text:
    change = quote.get("change") or 0
    return Text(text, style="green" if change > 0 else "red" if change < 0 else "")


COLUMNS = (
    Column("symbol", lambda symbol, *_: Text(symbol), "left"),
    Column("price", lambda _, quote, __: _coloured(_price(quote.get("current_price")), quote)),
    Column("%", lambda _, quote, __: _coloured(_percent(quote), quote)),
    Column("change", lambda _, quote, __: _coloured(_price(quote.get("change"), sign="+"), quote)),
    Column("volume", lambda _, quote, __: Text(_volume(quote))),
    Column("updated", lambda _, quote, __: Text((quote.get("last_updated") or "")[11:23])),
    Column("version", lambda _, __, version: Text(str(version))),
    Column("bid", lambda _, quote, __: Text(_side(quote, "bid"))),
    Column("ask", lambda _, quote, __: Text(_side(quote, "ask"))),
)
"""In the order in which a narrow terminal keeps them. The name gets what is left. A column without a
value is left out.
"""

PRICES = {"change", "base_price", "previous_close", "open", "high", "low"}
"""Fields that are shown with a price's decimals."""

PLACED = {
    "symbol",
    "current_price",
    "change_percent",
    "volume",
    "last_updated",
    "bid",
    "ask",
}
"""Fields that have a place of their own in a line."""


def _column(field: str) -> Column:
    """Return the column of a field that the user asked for by its name."""
    return Column(field, lambda _, quote, __: Text(_value(quote, field)))


class Screen:
    """The newest document and the state of the connection, drawn as a table that fits the terminal.

    `changed` is set when there is something to draw. `fields` are those that the user asked for. They
    get columns if they have none.
    """

    def __init__(self, fields: Sequence[str] = ()) -> None:
        others = [each for each in dict.fromkeys(fields) if each not in PLACED | {"change", "name"}]
        self._columns = (*COLUMNS, *map(_column, others))
        self.changed = trio.Event()
        self._document = Document()
        self._state = "connecting"
        self._refused = ""
        self._quiet: set[str] = set()
        self._first = 0
        self._rows = 1

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.draw(options.max_width, console.height)

    def scroll(self, key: Key) -> None:
        """Move the rows that are seen."""
        steps = {
            Key.UP: -1,
            Key.DOWN: 1,
            Key.PAGE_UP: -self._rows,
            Key.PAGE_DOWN: self._rows,
            Key.HOME: -self._first,
            Key.END: len(self._document.quotes),
        }
        self._first += steps.get(key, 0)
        self.changed.set()

    def update(self, document: Document, message: dict[str, Any]) -> None:
        """Take in one message."""
        self.changed.set()
        if message["type"] == "quotes_patch" or "recovered" in message:
            self._state = "live"
        elif message["type"] == "connection":
            self._state = f"{message['problem']}, next try in {message['retry_in']:.1f} s"
            self._quiet.clear()
            return
        elif message["type"] == "status" and "symbols" in message:
            if message["status"] == "stale":
                self._quiet.update(message["symbols"])
            elif message["status"] == "live":
                self._quiet.difference_update(message["symbols"])
        elif message["type"] == "status":
            self._state = f"{message['status']}: {message['reason']}"
        elif message["type"] == "error":
            self._refused = f" ({message['message']}: {', '.join(message.get('symbols', ()))})"
        self._document = document

    def draw(self, width: int, height: int) -> Table:
        """Return the table of the quotes that fit a terminal of this size."""
        symbols = sorted(self._document.quotes)
        self._rows = max(1, height - FRAME_LINES)
        self._first = max(0, min(self._first, len(symbols) - self._rows))
        seen = symbols[self._first : self._first + self._rows]
        state = self._state + self._refused
        if len(seen) < len(symbols):
            state = f"{self._first + 1}-{self._first + len(seen)} of {len(symbols)}  {state}"
        # As Text, since the server's words may look like rich's markup.
        caption = Text(state, no_wrap=True, overflow="ellipsis")
        table = Table(
            box=SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            caption=caption,
            caption_justify="left",
            show_edge=False,
        )
        cells = {
            column: [
                column.cell(symbol, self._document.quotes[symbol], self._document.versions[symbol])
                for symbol in seen
            ]
            for column in self._columns
        }
        columns, left = _fitting(cells, width)
        for column in columns:
            width = column.width(cells[column])
            table.add_column(column.heading, justify=column.justify, width=width, no_wrap=True)
        names = left >= NARROWEST_NAME
        if names:
            table.add_column("name", no_wrap=True, max_width=left)
        for row, symbol in enumerate(seen):
            text = self._document.quotes[symbol].get("name", "")
            name = [Text(text, overflow="ellipsis")] if names else []
            style = "dim" if symbol in self._quiet else None
            table.add_row(*(cells[column][row] for column in columns), *name, style=style)
        return table


def _fitting(cells: dict[Column, list[Text]], width: int) -> tuple[list[Column], int]:
    """Return the columns with a value that fit `width`, and the width that they leave."""
    columns: list[Column] = []
    for column, texts in cells.items():
        if texts and not any(text.plain for text in texts):
            continue
        needed = GAP + column.width(texts)
        if needed > width and columns:
            break
        width -= needed
        columns.append(column)
    return columns, width - GAP


def _percent(quote: dict[str, Any]) -> str:
    """Format the change in percent. There is none from a base price that is not above zero."""
    percent = quote.get("change_percent")
    return "" if percent is None else f"{percent:+.2f}"


def _volume(quote: dict[str, Any]) -> str:
    """Format the volume; empty if the client did not ask for it."""
    return _number(quote["volume"]) if "volume" in quote else ""


def _side(quote: dict[str, Any], side: Literal["bid", "ask"]) -> str:
    """Format the price of one side of the book; empty if it is not known."""
    return _price(quote.get(side))


def _book(quote: dict[str, Any]) -> str:
    """Format both sides of the book for the end of a line; empty if neither is known."""
    bid, ask = _side(quote, "bid"), _side(quote, "ask")
    return f"  bid {bid or '-'} ask {ask or '-'}" if bid or ask else ""


def _others(quote: dict[str, Any], fields: Sequence[str]) -> str:
    """Format those of `fields` that have no place of their own, for the end of a line."""
    names = [field for field in dict.fromkeys(fields) if field not in PLACED]
    return "".join(f"  {field} {_value(quote, field) or '-'}" for field in names)


def _value(quote: dict[str, Any], field: str) -> str:
    """Format any field; empty if it is not known."""
    value = quote.get(field)
    if field in PRICES:
        return _price(value)
    return _number(value) if isinstance(value, int | float) else value or ""


def _number(value: float) -> str:
    """Format a number with its own decimals, never with an exponent."""
    return f"{Decimal(repr(value)):,f}"


def _price(price: float | None, *, sign: str = "-") -> str:
    """Format a price with its own decimals, but at least two; empty before the first price."""
    if price is None:
        return ""
    _, _, decimals = f"{Decimal(repr(price)):f}".partition(".")
    return f"{price:{sign},.{max(2, len(decimals))}f}"
