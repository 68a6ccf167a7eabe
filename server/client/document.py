"""A client's copy of the quotes. It applies patches and detects missed ones."""

from collections.abc import Collection
from contextlib import suppress
from typing import Any

import jsonpatch

from server.quotes.position import format_position

NOT_HELD = jsonpatch.JsonPatchConflict, jsonpatch.JsonPointerException
"""Errors of an operation on a quote that the document does not hold."""


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
        """Apply one `quotes_patch`. Return the symbols that missed a version and need a `resync`.

        `since` names, by symbol, the update before this one if the client chose its fields. Otherwise
        each update follows the version before it.
        """
        operations, versions = message["operations"], message["versions"]
        replaced = not operations or any(operation["op"] == "replace" for operation in operations)
        since = message.get("since", {})
        missed = [
            symbol
            for symbol, version in versions.items()
            if replaced and not self._follows(symbol, version, since.get(symbol, version - 1))
        ]
        try:
            self._patch(operations)
        except NOT_HELD:
            for operation in operations:
                # `missed` has the symbol, unless its full quote was asked for already.
                with suppress(*NOT_HELD):
                    self._patch([operation])
        self.versions |= versions
        self._proven.difference_update(missed)
        if epoch := message.get("epoch"):
            if epoch != self._epoch:
                self._epoch, self._proven = epoch, set()
            self._proven |= versions.keys()
        if not replaced:
            self._forget(versions.keys() - self.quotes.keys())
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
        self._forget(self.versions.keys() - symbols)

    def _patch(self, operations: list[dict[str, Any]]) -> None:
        self._document = jsonpatch.apply_patch(self._document, operations, in_place=True)

    def _follows(self, symbol: str, version: int, since: int) -> bool:
        """Return whether no update lies between the held version and `version`."""
        held = self.versions.get(symbol)
        return held is not None and since <= held < version

    def _forget(self, symbols: Collection[str]) -> None:
        for symbol in symbols:
            self.quotes.pop(symbol, None)
            self.versions.pop(symbol, None)
        self._proven.difference_update(symbols)
