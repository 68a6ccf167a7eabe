"""A client's copy of the quotes. It applies patches and detects missed ones."""

from collections.abc import Collection
from typing import Any

import jsonpatch

from server.quotes.position import format_position


class Document:
    """Quotes and their versions, by symbol.

    A document outlives its connection: the next one resumes from `position`.
    """

    def __init__(self) -> None:
        self._document: dict[str, Any] = {"quotes": {}}
        self.versions: dict[str, int] = {}
        self._epoch = ""
        self._proven: set[str] = set()

    @property
    def quotes(self) -> dict[str, dict[str, Any]]:
        """Return the quotes by symbol."""
        quotes: dict[str, dict[str, Any]] = self._document["quotes"]
        return quotes

    def apply(self, message: dict[str, Any]) -> list[str]:
        """Apply one `quotes_patch`. Return the symbols that missed a version and need a `resync`."""
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
        """Return the value of `resume`: all quotes known to match the server's; empty for none."""
        if not self._epoch:
            return ""
        held = [(symbol, self.versions[symbol]) for symbol in self._proven & self.quotes.keys()]
        return format_position(self._epoch, held)

    def keep(self, symbols: Collection[str]) -> None:
        """Forget all quotes but those of `symbols`, which the server continues to send."""
        for symbol in self.quotes.keys() - symbols:
            del self.quotes[symbol]
