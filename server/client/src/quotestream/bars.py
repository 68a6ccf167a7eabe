"""Bars of some symbols, as they come."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar, get_args

import msgspec

from quotestream.errors import BadMessage
from quotestream.values import Bar
from server.quotes.traded import Timeframe

TIMEFRAMES: tuple[str, ...] = get_args(Timeframe)
"""The lengths of bars that servers have."""

MAX_WAITING = 60
"""Bars of a symbol that wait for the application: as many as the server keeps for a slow client."""

Until = Callable[[Callable[[], bool]], Awaitable[None]]

_T = TypeVar("_T")


class _About(msgspec.Struct):
    """A message about bars of one symbol: `bar` is missing if the server dropped it."""

    symbol: str
    bar: dict[str, Any] = msgspec.field(default_factory=dict)


class Bars:
    """An asynchronous iterator of the bars of `symbols`, all of one length.

    A bar that waits for the application is replaced by its newest state. At most 60 times the number
    of symbols wait. Beyond that the oldest is dropped, and `missed` has its symbol, as if the server
    had dropped the bar. After a lost connection, and once prices flow again, `missed` has all symbols.
    Ask `GET /bars` for the bars, and clear `missed`.

    Iterating ends after `stop`.
    """

    def __init__(
        self,
        symbols: Sequence[str],
        timeframe: str,
        until: Until,
        stop: Callable[["Bars"], Awaitable[None]],
    ) -> None:
        if timeframe not in TIMEFRAMES:
            raise ValueError(f"{timeframe!r} is not one of the timeframes {', '.join(TIMEFRAMES)}")
        self.symbols = [*symbols]
        self.timeframe = timeframe
        self.missed: set[str] = set()
        """The symbols of which final bars may be missing."""
        self.ended: datetime | None = None
        """All bars that began at this time, or before, have come; None before the first end."""
        self._until = until
        self._stop = stop
        self._waiting: dict[tuple[str, datetime], Bar] = {}
        self._has_stopped = False

    def __repr__(self) -> str:
        return f"<Bars of {len(self.symbols)} symbols, {self.timeframe}, {len(self._waiting)} wait>"

    def __aiter__(self) -> AsyncIterator[Bar]:
        return self

    async def __anext__(self) -> Bar:
        """Return the bar that waited longest. Errors: as of the quotes' own iterator."""
        await self._until(lambda: bool(self._waiting) or self._has_stopped)
        if self._has_stopped:
            raise StopAsyncIteration
        return self._waiting.pop(next(iter(self._waiting)))

    async def stop(self) -> None:
        """Give these bars up; once more does nothing. Errors: CommandRefused, Refused, Ended."""
        self._has_stopped = True
        await self._stop(self)

    def take(self, message: dict[str, Any]) -> None:
        """Take a message about bars. Errors: BadMessage."""
        if message.get("timeframe") != self.timeframe:
            return
        if message["type"] == "bars_end":
            self.ended = _converted(message.get("t"), datetime)
            return
        about = _converted(message, _About)
        if about.symbol not in self.symbols:
            return
        if message["type"] == "bars_missed":
            self.missed.add(about.symbol)
        else:
            named = {"symbol": about.symbol, "timeframe": self.timeframe}
            self._add(_converted(about.bar | named, Bar))

    def interrupted(self) -> None:
        """Note that bars did not come for a while."""
        self.missed.update(self.symbols)

    def rename(self, new: Mapping[str, str]) -> None:
        """Follow instruments that got another symbol."""
        if new:
            self.symbols = [new.get(symbol, symbol) for symbol in self.symbols]

    def _add(self, bar: Bar) -> None:
        waiting = self._waiting.get((bar.symbol, bar.t))
        if waiting is not None and (waiting.rev, waiting.final) > (bar.rev, bar.final):
            # A bar that comes late, as through a proxy, does not replace its correction.
            return
        self._waiting[bar.symbol, bar.t] = bar
        if len(self._waiting) > MAX_WAITING * len(self.symbols):
            oldest = self._waiting.pop(next(iter(self._waiting)))
            self.missed.add(oldest.symbol)


def _converted(value: Any, kind: type[_T]) -> _T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise BadMessage(f"the server sent a bar that is not valid: {error}") from None
