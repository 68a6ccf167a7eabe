"""Quotes as lines for a pipe: text for people, or one JSON object a line for programs."""

import json
import os
import stat
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import trio

from server.client.activity import Activity
from server.client.columns import PLACED
from server.client.document import Document
from server.client.figures import (
    clean,
    percent_text,
    price_text,
    side_text,
    value_text,
    volume_text,
)

Print = Callable[[Document, dict[str, Any]], None]


def print_message(document: Document, message: dict[str, Any], fields: Sequence[str] = ()) -> None:
    """Print a line for each changed quote, or for a message of another type. If the client chose its
    `fields`, a line leaves out the others. Those without a place of their own come last, with their
    names.
    """
    if message["type"] != "quotes_patch":
        print(clean(json.dumps(_counted(message), ensure_ascii=False)), flush=True)
        return
    for symbol in message["versions"]:
        if symbol in document.quotes:
            quote = document.quotes[symbol]
            updated = clean(quote.get("last_updated") or "-")
            percent = f"{percent_text(quote):>9} %" if "change_percent" in quote else ""
            print(
                f"{updated[:23]:<24}{clean(symbol):<8}{price_text(quote.get('current_price')):>12}"
                f"{percent}{volume_text(quote):>15}{_book(quote)}{_others(quote, fields)}".rstrip(),
                flush=True,
            )


def print_json(document: Document, message: dict[str, Any]) -> None:
    """Print one JSON object for each changed quote, or for a message of another type. The text is
    ASCII, so no terminal takes a name for a command.
    """
    for each in json_objects(document, message):
        print(json.dumps(each), flush=True)


def json_objects(document: Document, message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the objects of `--json`: `quote` with the whole quote, `removed`, or another message."""
    if message["type"] != "quotes_patch":
        yield message
        return
    renamed = message.get("renamed", {})
    for symbol, version in message["versions"].items():
        quote = document.quotes.get(symbol)
        if quote is None:
            new = {"renamed": renamed[symbol]} if symbol in renamed else {}
            yield {"type": "removed", "symbol": symbol, **new}
        else:
            about = {"type": "quote", "symbol": symbol, "version": version}
            yield about | {"ts": message.get("ts"), "quote": quote}


class Busiest:
    """Passes on the changes of the `top` symbols with the most updates in the last minute."""

    def __init__(self, top: int, show: Print, clock: Callable[[], float]) -> None:
        self._top = top
        self._show = show
        self._clock = clock
        self._activity = Activity()
        self._known: set[str] = set()

    def __call__(self, document: Document, message: dict[str, Any]) -> None:
        """Take in one message. The opening quotes are not changes."""
        if message["type"] != "quotes_patch":
            self._show(document, message)
            return
        now = self._clock()
        versions = message["versions"]
        for symbol in versions:
            if symbol in self._known:
                self._activity.note(symbol, now)
        busiest = self._activity.busiest(self._top, now)
        shown = {each: versions[each] for each in busiest if each in versions}
        self._known |= versions.keys()
        if shown:
            self._show(document, message | {"versions": shown})


async def end_with_reader() -> NoReturn:
    """Wait until the reader of standard output, such as `head`, has closed its pipe.

    Errors: BrokenPipeError then. For an output that is not a pipe it waits for ever.
    """
    fd = sys.stdout.fileno()
    if stat.S_ISFIFO(os.fstat(fd).st_mode):
        # The end for writing never has anything to read: only a closed pipe wakes this task.
        await trio.lowlevel.wait_readable(fd)
        raise BrokenPipeError
    await trio.sleep_forever()
    raise AssertionError("it sleeps for ever")


def _counted(message: dict[str, Any]) -> dict[str, Any]:
    """Count the symbols of `recovered` by result, as there may be hundreds."""
    if "recovered" not in message:
        return message
    return message | {"recovered": dict(Counter(message["recovered"].values()))}


def _book(quote: dict[str, Any]) -> str:
    """Format both sides of the book for the end of a line; empty if neither is known."""
    bid, ask = side_text(quote, "bid"), side_text(quote, "ask")
    return f"  bid {bid or '-'} ask {ask or '-'}" if bid or ask else ""


def _others(quote: dict[str, Any], fields: Sequence[str]) -> str:
    """Format those of `fields` that have no place of their own, for the end of a line."""
    names = [field for field in dict.fromkeys(fields) if field not in PLACED]
    return "".join(f"  {field} {value_text(quote, field) or '-'}" for field in names)
