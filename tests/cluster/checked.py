"""A client's quotes: each message is checked against the protocol's promises."""

from typing import Any

import jsonpatch

from tests.gateway.wire import is_move

Version = tuple[str, str, int]
"""Epoch, symbol, version: they name one state of one quote, the same on every instance."""

Seen = dict[Version, dict[str, Any]]
"""Quotes that at least one of several clients had."""


class CheckedQuotes:
    """`document` is what the patches amount to, `held` by symbol the epoch and version that it has.

    Within an epoch versions only grow, by one with each `replace`; a quote of one version is the same
    whoever shows it. That goes also for a client that went away and came back.
    """

    def __init__(self, seen: Seen) -> None:
        self.document: dict[str, Any] = {"quotes": {}}
        self.held: dict[str, tuple[str, int]] = {}
        self._newest: dict[tuple[str, str], int] = {}
        self._seen = seen

    @property
    def epochs(self) -> set[str]:
        """The epochs of its quotes."""
        return {epoch for epoch, _ in self.held.values()}

    def forget_versions(self) -> None:
        """Accept older versions: a killed leader may have shown its own clients a change that it had
        not published yet.
        """
        self._newest.clear()

    def apply(self, message: dict[str, Any]) -> None:
        """Apply a `quotes_patch`. Errors: AssertionError names its fault."""
        jsonpatch.apply_patch(self.document, message["operations"], in_place=True)
        for symbol, version in message["versions"].items():
            before = self.held.get(symbol)
            if is_move(message):
                assert before, "a replace of what it does not have"
                assert version == before[1] + 1, f"{symbol}: {version} after {before}"
                epoch = before[0]
            else:
                epoch = message["epoch"]
            newest = self._newest.get((epoch, symbol), 0)
            assert version >= newest, f"{symbol}: {version} after {newest} in {epoch}"
            self.held[symbol], self._newest[epoch, symbol] = (epoch, version), version
            quote = dict(self.document["quotes"][symbol])
            other = self._seen.setdefault((epoch, symbol, version), quote)
            assert other == quote, f"{epoch}, {symbol}, {version} is not the same everywhere"
