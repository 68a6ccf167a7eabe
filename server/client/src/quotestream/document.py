"""A client's copy of the quotes. It applies patches and detects missed ones."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import jsonpatch
from msgspec import json

from server.quotes.position import format_position

NOT_HELD = jsonpatch.JsonPatchConflict, jsonpatch.JsonPointerException
"""Errors of an operation on a quote that the document does not hold."""

ROOT = "/quotes/"
"""The beginning of each operation's path. A server has nothing to say about anything else."""

QUOTE, FIELD = 2, 3
"""The number of slashes in the path of a quote, and in that of one of its fields."""

MAX_FIELDS = 256
"""Fields of a quote: ten times what servers have. Without a limit they could fill the memory."""

LARGEST = 1e300
"""The largest number of a quote: the difference of two is a double, too. MessagePack has infinity."""

MAX_VALUE = 4096
"""Characters of a field's JSON. The longest value of a server is a name of 200 characters."""


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

        Errors: ValueError for a patch that is not about quotes, or of a size that no quote has;
        LookupError, TypeError and jsonpatch's own for one that is not a patch.
        """
        operations, versions = message["operations"], message["versions"]
        _check(operations)
        whole = _whole(operations)
        since = message.get("since", {})
        missed = [
            symbol
            for symbol, version in versions.items()
            if symbol not in whole
            and not self._follows(symbol, version, since.get(symbol, version - 1))
        ]
        missed += self._patch(operations) - {*missed}
        _check_values(self.quotes.get(each) for each in _grown(operations))
        self.versions |= versions
        if (epoch := message.get("epoch")) and epoch != self.epoch:
            self.epoch, self._proven = epoch, set()
            self.missed |= self.quotes.keys()
        if epoch:
            self._proven |= whole
        self.missed -= whole
        self.forget(whole - self.quotes.keys())
        self._proven.difference_update(missed)
        self.missed.update(missed)
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

    def _patch(self, operations: list[dict[str, Any]]) -> set[str]:
        """Apply operations. Return the symbols whose quotes are held, but of which one failed: only the
        full quote helps, and nobody has asked for it.
        """
        try:
            self._document = jsonpatch.apply_patch(self._document, operations, in_place=True)
        except NOT_HELD:
            return {*self._patch_singly(operations)} & self.quotes.keys() - self.missed
        return set()

    def _patch_singly(self, operations: list[dict[str, Any]]) -> Iterator[str]:
        for operation in operations:
            try:
                self._document = jsonpatch.apply_patch(self._document, [operation], in_place=True)
            except NOT_HELD:
                yield _symbol(operation["path"])

    def _follows(self, symbol: str, version: int, since: int) -> bool:
        """Return whether no update lies between the held version and `version`."""
        held = self.versions.get(symbol)
        return held is not None and since <= held < version


def _check(operations: Iterable[dict[str, Any]]) -> None:
    """Refuse operations on anything but quotes and their fields. Errors: ValueError.

    A copy of a whole quote is refused, too. A thousand of them would fit into one message.
    """
    for operation in operations:
        path, kind = operation["path"], operation["op"]
        level = path.count("/")
        good = path.startswith(ROOT) and level <= FIELD
        if kind in ("move", "copy"):
            source = operation["from"]
            good = good and source.startswith(ROOT) and source.count("/") == level
            good = good and (kind == "move" or level == FIELD)
        if not good:
            raise ValueError(f"a patch of {path[:60]!r}")
        if kind in ("add", "replace"):
            value = operation["value"]
            if level == QUOTE and not isinstance(value, dict):
                raise ValueError(f"a quote that is not an object: {path[:60]!r}")
            _check_values([value if level == QUOTE else {"": value}])


def _symbol(path: str) -> str:
    """Return the symbol of an operation's path."""
    return path.split("/")[QUOTE].replace("~1", "/").replace("~0", "~")


def _whole(operations: Iterable[dict[str, Any]]) -> set[str]:
    """Return the symbols whose quotes come or go as a whole."""
    changes = [each for each in operations if each["op"] != "test"]
    paths = [each["path"] for each in changes]
    paths += [each["from"] for each in changes if each["op"] == "move"]
    return {_symbol(path) for path in paths if path.count("/") == QUOTE}


def _grown(operations: Iterable[dict[str, Any]]) -> set[str]:
    """Return the symbols of the quotes that may have got another field."""
    paths = [each["path"] for each in operations if each["op"] in ("add", "move", "copy")]
    return {_symbol(path) for path in paths if path.count("/") == FIELD}


def _check_values(quotes: Iterable[Mapping[str, Any] | None]) -> None:
    """Refuse quotes and numbers that are too large. Errors: ValueError."""
    for quote in filter(None, quotes):
        if len(quote) > MAX_FIELDS:
            raise ValueError(f"a quote of {len(quote)} fields")
        for value in quote.values():
            if isinstance(value, int | float):
                # No comparison with NaN is true.
                if not abs(value) <= LARGEST:
                    raise ValueError("a number that is too large, or NaN")
            elif value is not None and len(json.encode(value)) > MAX_VALUE:
                raise ValueError(f"a value of more than {MAX_VALUE} characters")
