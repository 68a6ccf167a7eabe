"""A client's copy of the quotes, kept by applying patches, and the proof that nothing was missed."""

from typing import Any

import jsonpatch


class Document:
    """`quotes` by symbol as the server has them; `versions` of each."""

    def __init__(self) -> None:
        self._document: dict[str, Any] = {"quotes": {}}
        self.versions: dict[str, int] = {}

    @property
    def quotes(self) -> dict[str, dict[str, Any]]:
        """Symbol to quote."""
        quotes: dict[str, dict[str, Any]] = self._document["quotes"]
        return quotes

    def apply(self, message: dict[str, Any]) -> list[str]:
        """Apply one `quotes_patch`; the symbols for which a version was missed, to be resynced."""
        operations = message["operations"]
        self._document = jsonpatch.apply_patch(self._document, operations, in_place=True)
        replaced = any(operation["op"] == "replace" for operation in operations)
        missed = [
            symbol
            for symbol, version in message["versions"].items()
            if replaced and version != self.versions.get(symbol, version) + 1
        ]
        self.versions |= message["versions"]
        return missed
