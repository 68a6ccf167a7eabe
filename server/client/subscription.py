"""The symbols that `quotestream watch` follows. The user adds and removes some while it runs."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio

from server.client.document import Document
from server.client.stream import Listener, StreamRefused
from server.client.table import Screen
from server.quotes.instrument import normalize_symbol

EVERYTHING = "*"

SETTLE = 0.3
"""Seconds to wait for further keys before the server is asked, so that ten removed symbols are one
connection.
"""

Follow = Callable[[Sequence[str], Listener], Awaitable[object]]
"""Follows symbols until it is cancelled. Errors: StreamRefused."""


class Subscription:
    """Follows `symbols`, and follows anew when they change."""

    def __init__(self, symbols: Sequence[str], follow: Follow, screen: Screen) -> None:
        self.symbols = [*dict.fromkeys(map(normalize_symbol, symbols))]
        self._follow = follow
        self._screen = screen
        self._changed = trio.Event()
        self._accepted = False
        self._added: list[str] = []

    def add(self, symbol: str) -> None:
        """Follow one more symbol, and choose it."""
        screen, symbol = self._screen, normalize_symbol(symbol)
        screen.market.unhide(symbol)
        screen.cursor.choose(symbol)
        if EVERYTHING in self.symbols:
            if not screen.market.holds(symbol):
                screen.connection.refuse("no quote of", [symbol], screen.now)
        elif symbol not in self.symbols:
            self.symbols.append(symbol)
            self._added.append(symbol)
            self._changed.set()

    def remove(self, symbol: str) -> None:
        """Follow a symbol no longer."""
        self._screen.market.hide(symbol)
        if symbol in self.symbols:
            self.symbols.remove(symbol)
            self._changed.set()

    async def run(self) -> None:
        """Follow until cancelled. Errors: StreamRefused for the symbols at the start."""
        while True:
            if self.symbols:
                await self._follow_until_changed()
            else:
                self._screen.restart("no symbols: press a to add one")
                await self._changed.wait()
            self._changed = trio.Event()

    async def _follow_until_changed(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cancel_when_changed, nursery.cancel_scope)
            try:
                await self._follow(self.symbols, self._listen)
            except StreamRefused as refused:
                if not self._accepted or not self._added:
                    raise
                # The server refuses the added symbols: go on with the others.
                self._screen.connection.refuse(str(refused), (), self._screen.now)
                self._drop(self._added)
                nursery.cancel_scope.cancel()

    async def _cancel_when_changed(self, scope: trio.CancelScope) -> None:
        await self._changed.wait()
        await trio.sleep(SETTLE)
        self._screen.restart()
        scope.cancel()

    def _listen(self, document: Document, message: dict[str, Any]) -> None:
        if message["type"] == "quotes_patch":
            self._accepted = True
            self._added.clear()
            renamed = message.get("renamed", {})
            self.symbols = [renamed.get(symbol, symbol) for symbol in self.symbols]
        elif message["type"] == "error" and message.get("code") == "unknown_symbol":
            self._drop(message.get("symbols", ()))
        self._screen.update(document, message)

    def _drop(self, symbols: Sequence[str]) -> None:
        self.symbols = [each for each in self.symbols if each not in symbols]
        self._added = [each for each in self._added if each not in symbols]
