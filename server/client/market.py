"""The symbols of the live table: their quotes, prices seen, updates, and a pause."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any

from server.client.activity import Activity
from server.client.columns import Row
from server.client.document import Document
from server.client.seen import Point, PricesSeen

RANKED_EVERY = 1.0
"""Seconds between two rankings of the busiest symbols, so that rows do not jump with each update."""


class Market:
    """The newest document, and what came before it.

    `top` is the number of busiest symbols to show, 0 for all. Times are in seconds since 1970.
    """

    def __init__(self, top: int = 0) -> None:
        self._top = top
        self._document = Document()
        self._frozen: Document | None = None
        self._frozen_at = 0.0
        self._seen: defaultdict[str, PricesSeen] = defaultdict(PricesSeen)
        self._frozen_seen = self._seen
        self._versions: dict[str, int] = {}
        self._activity = Activity()
        self._ranked: dict[str, int] = {}
        self._ranked_at = 0.0
        self._quiet: set[str] = set()
        self._hidden: set[str] = set()

    @property
    def is_paused(self) -> bool:
        """Return whether the table shows the quotes of an earlier moment."""
        return self._frozen is not None

    def take(self, document: Document, message: Mapping[str, Any], now: float) -> None:
        """Take in one message, with the document after it."""
        kind = message["type"]
        if kind == "connection":
            self.restart()
        if kind in ("connection", "connected"):
            # The document of a connection for other symbols is still empty.
            return
        if kind == "status" and "symbols" in message:
            if message["status"] == "stale":
                self._quiet.update(message["symbols"])
            elif message["status"] == "live":
                self._quiet.difference_update(message["symbols"])
        self._document = document
        if kind == "quotes_patch":
            for symbol, version in message["versions"].items():
                self._note(symbol, version, now)

    def restart(self) -> None:
        """Forget which symbols are quiet, as each connection names them anew."""
        self._quiet.clear()

    def _note(self, symbol: str, version: int, now: float) -> None:
        before = self._versions.get(symbol)
        self._versions[symbol] = version
        quote = self._document.quotes.get(symbol)
        if quote is None:
            self._seen.pop(symbol, None)
            self._versions.pop(symbol, None)
            return
        if (price := quote.get("current_price")) is not None:
            self._seen[symbol].note(now, price)
        # A full quote with the version that we have is not an update.
        if before is not None and before != version:
            self._activity.note(symbol, now)

    def put_before(self, symbol: str, points: Iterable[Point]) -> None:
        """Add prices from before the first one seen."""
        self._seen[symbol].put_before(points)

    def points(self, symbol: str, now: float) -> list[Point]:
        """Return times and prices of the last hour, up to `now` or to the pause."""
        if self.is_paused:
            return self._frozen_seen[symbol].points(self._frozen_at)
        return self._seen[symbol].points(now)

    def pause(self, now: float) -> None:
        """Show the quotes of this moment until `go_on`. Messages are still taken in."""
        frozen = Document()
        frozen.quotes.update({symbol: {**each} for symbol, each in self._document.quotes.items()})
        frozen.versions = {**self._document.versions}
        self._frozen, self._frozen_at = frozen, now
        self._frozen_seen = deepcopy(self._seen)

    def go_on(self) -> None:
        """Show the newest quotes again."""
        self._frozen = None
        self._frozen_seen = self._seen

    def hide(self, symbol: str) -> None:
        """Leave a symbol out, although its updates may still come."""
        self._hidden.add(symbol)

    def unhide(self, symbol: str) -> None:
        """Show a symbol again."""
        self._hidden.discard(symbol)

    def is_quiet(self, symbol: str) -> bool:
        """Return whether the server says that a symbol does not trade."""
        return symbol in self._quiet

    def holds(self, symbol: str) -> bool:
        """Return whether there is a quote of a symbol."""
        return symbol in self._document.quotes

    def symbols(self, now: float) -> list[str]:
        """Return the symbols to show: in their order, or the busiest first."""
        quotes = (self._frozen or self._document).quotes
        if not self._top:
            return sorted(quotes.keys() - self._hidden)
        if not self._ranked or (not self.is_paused and now - self._ranked_at >= RANKED_EVERY):
            self._ranked_at = now
            number = self._top + len(self._hidden)
            busiest = self._activity.busiest(number, now)
            self._ranked = {symbol: self._activity.count(symbol) for symbol in busiest}
        shown = [each for each in self._ranked if each in quotes and each not in self._hidden]
        return shown[: self._top]

    def row(self, symbol: str, now: float | None) -> Row:
        """Return what is known of a symbol. Its age counts to the pause."""
        document = self._frozen or self._document
        quote, version = document.quotes[symbol], document.versions.get(symbol, 0)
        seen = (self._frozen_seen if self.is_paused else self._seen)[symbol]
        moment = self._frozen_at if now is not None and self.is_paused else now
        return Row(symbol, quote, version, seen, self._ranked.get(symbol, 0), moment)
