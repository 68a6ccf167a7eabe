"""A client's copy of the quotes, kept by applying patches, and the proof that nothing was missed."""

from collections.abc import Collection
from typing import Any

import jsonpatch

from server.quotes.position import format_position


class Document:
    """`quotes` by symbol as the server has them; `versions` of each.

    It outlives a connection: `position` is what the next one resumes with.
    """

    def __init__(self) -> None:
        self._document: dict[str, Any] = {"quotes": {}}
        self.versions: dict[str, int] = {}
        self._epoch = ""
        self._proven: set[str] = set()

    @property
    def quotes(self) -> dict[str, dict[str, Any]]:
        """Symbol to quote."""
        quotes: dict[str, dict[str, Any]] = self._document["quotes"]
        return quotes

    def apply(self, message: dict[str, Any]) -> list[str]:
        """Apply one `quotes_patch`; the symbols for which a version was missed, to be resynced."""
        operations, versions = message["operations"], message["versions"]
        self._document = jsonpatch.apply_patch(self._document, operations, in_place=True)
        replaced = any(operation["op"] == "replace" for operation in operations)
        missed = [
            symbol
            for symbol, version in versions.items()
            if replaced and version != self.versions.get(symbol, version) + 1
        ]
        self.versions |= versions
        self._proven.difference_update(missed)
        if epoch := message.get("epoch"):
            if epoch != self._epoch:
                self._epoch, self._proven = epoch, set()
            self._proven |= versions.keys()
        return missed

    @property
    def position(self) -> str:
        """Return the argument of `resume`: the quotes known to be as the server had them, or ""."""
        if not self._epoch:
            return ""
        held = [(symbol, self.versions[symbol]) for symbol in self._proven & self.quotes.keys()]
        return format_position(self._epoch, held)

    def keep(self, symbols: Collection[str]) -> None:
        """Forget the quotes of all but `symbols`: those the server goes on with."""
        for symbol in self.quotes.keys() - symbols:
            del self.quotes[symbol]
