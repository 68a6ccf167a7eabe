"""A client's copy of the quotes. It applies patches and detects missed ones."""

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import Any

import jsonpatch

from server.quotes.position import format_position

NOT_HELD = jsonpatch.JsonPatchConflict, jsonpatch.JsonPointerException
"""Errors of an operation on a quote that the document does not hold."""

ROOT = "/quotes/"
"""The beginning of each operation's path. A server has nothing to say about anything else."""


class Document:
    """Quotes and their versions, by symbol.

    A document outlives its connection: the next one resumes from `position`.
    """

    def __init__(self) -> None:
        self._document: dict[str, Any] = {"quotes": {}}
        self.versions: dict[str, int] = {}
        self.epoch = ""
        """The newest epoch, empty before the first full quote."""
        self.missed: set[str] = set()
        """The symbols whose quotes are not proven to be the newest."""
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

        Errors: ValueError for a patch that is not about quotes; LookupError, TypeError and jsonpatch's
        own for one that is not a patch.
        """
        operations, versions = message["operations"], message["versions"]
        _check(operations)
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
        self.missed.update(missed)
        if epoch := message.get("epoch"):
            if epoch != self.epoch:
                self.epoch, self._proven = epoch, set()
                self.missed |= self.quotes.keys()
            self._proven |= versions.keys()
        if not replaced:
            self.missed -= versions.keys()
            self.forget(versions.keys() - self.quotes.keys())
        return missed

    @property
    def position(self) -> str:
        """Return the value of `resume`: all quotes known to match the server's; empty for none."""
        if not self.epoch:
            return ""
        held = [(symbol, self.versions[symbol]) for symbol in self._proven & self.quotes.keys()]
        return format_position(self.epoch, held)

    def reconnected(self) -> None:
        """Note that a connection begins: all quotes may be old until the server tells what comes."""
        self.missed |= self.quotes.keys()

    def recovered(self, recovered: Mapping[str, str]) -> None:
        """Take the answer to `resume`: forget each quote that it leaves out."""
        self.forget(self.versions.keys() - recovered.keys())
        self.missed -= {symbol for symbol, what in recovered.items() if what != "quote"}

    def forget(self, symbols: Collection[str]) -> None:
        """Forget the quotes of `symbols`."""
        for symbol in symbols:
            self.quotes.pop(symbol, None)
            self.versions.pop(symbol, None)
        self._proven.difference_update(symbols)
        self.missed.difference_update(symbols)

    def _patch(self, operations: list[dict[str, Any]]) -> None:
        self._document = jsonpatch.apply_patch(self._document, operations, in_place=True)

    def _follows(self, symbol: str, version: int, since: int) -> bool:
        """Return whether no update lies between the held version and `version`."""
        held = self.versions.get(symbol)
        return held is not None and since <= held < version


def _check(operations: Iterable[dict[str, Any]]) -> None:
    """Refuse operations on anything but quotes and their fields. Errors: ValueError."""
    for operation in operations:
        path = operation["path"]
        if not path.startswith(ROOT):
            raise ValueError(f"a patch of {path[:60]!r}")
        whole = path.count("/") == 2 and operation["op"] in ("add", "replace")
        if whole and not isinstance(operation["value"], dict):
            raise ValueError(f"a quote that is not an object: {path[:60]!r}")
