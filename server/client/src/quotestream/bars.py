"""Bars of some symbols, as they come."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from quotestream.errors import BadMessage
from quotestream.values import Bar

MAX_WAITING = 60
"""Bars of a symbol that wait for the application: as many as the server keeps for a slow client."""

Until = Callable[[Callable[[], bool]], Awaitable[None]]


class Bars:
    """An asynchronous iterator of the bars of `symbols`, all of one length.

    A bar that waits for the application is replaced by its newest state. Of each symbol, 60 bars wait
    at most. `missed` then has the symbol, as if the server had dropped the bar: ask `GET /bars` for
    them, and clear it. After a lost connection, `GET /bars` has the bars of the meantime.
    """

    def __init__(
        self,
        symbols: Sequence[str],
        timeframe: str,
        until: Until,
        stop: Callable[["Bars"], Awaitable[None]],
    ) -> None:
        self.symbols = [*symbols]
        self.timeframe = timeframe
        self.missed: set[str] = set()
        """The symbols of which final bars were dropped."""
        self.ended: datetime | None = None
        """All bars that began at this time, or before, have come; None before the first end."""
        self._until = until
        self._stop = stop
        self._waiting: dict[tuple[str, datetime], Bar] = {}

    def __aiter__(self) -> AsyncIterator[Bar]:
        return self

    async def __anext__(self) -> Bar:
        """Return the bar that waited longest. Errors: as of the quotes' own iterator."""
        await self._until(lambda: bool(self._waiting))
        return self._waiting.pop(next(iter(self._waiting)))

    async def stop(self) -> None:
        """Give these bars up. Errors: CommandRefused, Refused, Ended."""
        await self._stop(self)

    def take(self, message: dict[str, Any]) -> None:
        """Take a message about bars. Errors: BadMessage."""
        if message["timeframe"] != self.timeframe:
            return
        if message["type"] == "bars_end":
            self.ended = _converted(message["t"], datetime)
        elif message["symbol"] in self.symbols:
            if message["type"] == "bars_missed":
                self.missed.add(message["symbol"])
            else:
                named = {"symbol": message["symbol"], "timeframe": self.timeframe}
                self._add(_converted({**message["bar"], **named}, Bar))

    def rename(self, new: Mapping[str, str]) -> None:
        """Follow instruments that got another symbol."""
        if new:
            self.symbols = [new.get(symbol, symbol) for symbol in self.symbols]

    def drop(self, symbols: Collection[str]) -> None:
        """Leave out symbols that the server refuses."""
        self.symbols = [symbol for symbol in self.symbols if symbol not in symbols]

    def _add(self, bar: Bar) -> None:
        self._waiting[bar.symbol, bar.t] = bar
        if len(self._waiting) > MAX_WAITING * len(self.symbols):
            oldest = self._waiting.pop(next(iter(self._waiting)))
            self.missed.add(oldest.symbol)


def _converted(value: Any, kind: type[Any]) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise BadMessage(f"the server sent a bar that is not valid: {error}") from None
