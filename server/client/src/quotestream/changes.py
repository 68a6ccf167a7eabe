"""The quotes that an application sees, and the changes that wait for it, merged by symbol."""

from collections.abc import Iterable

import msgspec

from quotestream.document import Document
from quotestream.errors import BadMessage
from quotestream.values import Change, Quote

FIELDS = Quote.__struct_fields__

MAX_REMOVED = 10_000
"""Removed symbols that wait for an application that does not read: it sees later that they are gone."""


class Changes:
    """Typed quotes of a document, and at most one waiting change of each symbol."""

    def __init__(self, document: Document) -> None:
        self.quotes: dict[str, Quote] = {}
        self._document = document
        self._waiting: dict[str, Change] = {}

    def __bool__(self) -> bool:
        """Return whether a change waits."""
        return bool(self._waiting)

    def pop(self) -> Change:
        """Return the change that waited longest."""
        return self._waiting.pop(next(iter(self._waiting)))

    def note(self, symbols: Iterable[str]) -> None:
        """Note what is new of `symbols` in the document. Errors: BadMessage."""
        for symbol in symbols:
            old, new = self.quotes.get(symbol), quote_of(self._document, symbol)
            if new is not None:
                self.quotes[symbol] = new
            elif old is not None:
                del self.quotes[symbol]
            if fields := _differences(old, new):
                self._add(symbol, new, fields)

    def _add(self, symbol: str, quote: Quote | None, fields: frozenset[str]) -> None:
        if quote is None and len(self._waiting) > len(self.quotes) + MAX_REMOVED:
            self._waiting.pop(symbol, None)
            return
        before = self._waiting.get(symbol)
        version = self._document.versions.get(symbol, before.version if before else 0)
        merged = fields | before.fields if before else fields
        # It keeps its place: a symbol that moves all the time would otherwise never be the first.
        self._waiting[symbol] = Change(symbol, quote, version, merged)


def quote_of(document: Document, symbol: str) -> Quote | None:
    """Return the typed quote of a symbol, None without one.

    Errors: BadMessage for a quote of other types. The document forgets it, so that the next connection
    does not resume from it.
    """
    values = document.quotes.get(symbol)
    if values is None:
        return None
    try:
        return msgspec.convert(values | {"symbol": symbol}, Quote)
    except msgspec.ValidationError as error:
        document.forget([symbol])
        raise BadMessage(f"the server sent a quote that is not valid: {error}") from None


def _differences(old: Quote | None, new: Quote | None) -> frozenset[str]:
    """Return the names of the fields that differ; all of them if one of the quotes is missing."""
    if old is None or new is None:
        return frozenset() if old is new else frozenset(FIELDS)
    return frozenset(name for name in FIELDS if getattr(old, name) != getattr(new, name))
