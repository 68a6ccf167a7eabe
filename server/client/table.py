"""A live table of quotes in the terminal; plain lines where the output is no terminal."""

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
    """One line per changed quote, or per message that is about something else."""
    if message["type"] != "quotes_patch":
        if "recovered" in message:  # for hundreds of symbols, perhaps
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
    """What is to be drawn: the newest document and the newest word about the connection."""

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
            turn = (
                self._quiet.update
                if message["status"] == "stale"
                else self._quiet.difference_update
            )
            turn(message["symbols"])
        elif message["type"] == "status":
            self._state = f"{message['status']}: {message['reason']}"
        elif message["type"] == "error":
            self._refused = f" ({message['message']}: {', '.join(message.get('symbols', ()))})"
        self._document = document

    def draw(self) -> Table:
        """The table as it is now."""
        caption = Text(self._state + self._refused)  # what others wrote is no markup of ours
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
    """With the decimals it came with, two at least."""
    _, _, decimals = f"{Decimal(repr(price)):f}".partition(".")
    return f"{price:{sign},.{max(2, len(decimals))}f}"
