"""A live table of quotes in the terminal; plain lines if the output is not a terminal."""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.live import Live
from rich.table import Table
from rich.text import Text

from server.client.document import Document
from server.client.stream import follow

REDRAWS_PER_SECOND = 10


async def watch(url: str, token: str, symbols: Sequence[str]) -> None:
    """Show the quotes until cancelled. Errors: StreamRefused."""
    if not sys.stdout.isatty():
        await follow(url, token, symbols, print_message)
    screen = Screen()
    with Live(get_renderable=screen.draw, refresh_per_second=REDRAWS_PER_SECOND):
        await follow(url, token, symbols, screen.update)


def print_message(document: Document, message: dict[str, Any]) -> None:
    """Print a line for each changed quote, or for a message of another type."""
    if message["type"] != "quotes_patch":
        # `recovered` may name hundreds of symbols, so count them by result.
        if "recovered" in message:
            message = message | {"recovered": dict(Counter(message["recovered"].values()))}
        print(json.dumps(message, ensure_ascii=False), flush=True)
        return
    for symbol in message["versions"]:
        if symbol in document.quotes:
            quote = document.quotes[symbol]
            print(
                f"{quote['last_updated'][:23]:<24}{symbol:<8}{_price(quote['current_price']):>12}"
                f"{quote['change_percent']:>+9.2f} %{quote['volume']:>15,}",
                flush=True,
            )


class Screen:
    """The newest document and the state of the connection, drawn as a table."""

    def __init__(self) -> None:
        self._document = Document()
        self._state = "connecting"
        self._refused = ""
        self._quiet: set[str] = set()

    def update(self, document: Document, message: dict[str, Any]) -> None:
        """Take in one message."""
        if message["type"] == "quotes_patch" or "recovered" in message:
            self._state = "live"
        elif message["type"] == "connection":
            self._state = f"{message['problem']}, next try in {message['retry_in']:.1f} s"
            self._quiet.clear()
            return
        elif message["type"] == "status" and "symbols" in message:
            if message["status"] == "stale":
                self._quiet.update(message["symbols"])
            else:
                self._quiet.difference_update(message["symbols"])
        elif message["type"] == "status":
            self._state = f"{message['status']}: {message['reason']}"
        elif message["type"] == "error":
            self._refused = f" ({message['message']}: {', '.join(message.get('symbols', ()))})"
        self._document = document

    def draw(self) -> Table:
        """Return the table with the present quotes."""
        # As Text, since the server's words may look like rich's markup.
        caption = Text(self._state + self._refused)
        table = Table(
            box=SIMPLE_HEAD, padding=(0, 1, 0, 0), caption=caption, caption_justify="left"
        )
        for heading in ("symbol", "name"):
            table.add_column(heading, no_wrap=heading == "symbol")
        for heading in ("price", "change", "%", "volume", "updated", "version"):
            table.add_column(heading, justify="right", no_wrap=True)
        for symbol, quote in sorted(self._document.quotes.items()):
            colour = "green" if quote["change"] > 0 else "red" if quote["change"] < 0 else "white"
            table.add_row(
                Text(symbol),
                Text(quote["name"][:28], no_wrap=True, overflow="ellipsis"),
                f"[{colour}]{_price(quote['current_price'])}",
                f"[{colour}]{_price(quote['change'], sign='+')}",
                f"[{colour}]{quote['change_percent']:+.2f}",
                f"{quote['volume']:,}",
                quote["last_updated"][11:23],
                str(self._document.versions[symbol]),
                style="dim" if symbol in self._quiet else None,
            )
        return table


def _price(price: float, *, sign: str = "-") -> str:
    """Format a price with its own decimals, but at least two."""
    _, _, decimals = f"{Decimal(repr(price)):f}".partition(".")
    return f"{price:{sign},.{max(2, len(decimals))}f}"
