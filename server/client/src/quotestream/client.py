"""The client: a mapping of quotes that keeps itself up to date, and the changes as they come.

The client's task reads and applies messages. It never waits for the application: an application that
does not read gets the newest quote of each symbol later, however many changes there were meanwhile.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import count
from time import time
from types import TracebackType
from typing import NoReturn, Self

import msgspec

from quotestream.bars import Bars
from quotestream.choosing import running_driver
from quotestream.core import Core
from quotestream.credential import Credential, TokenSource
from quotestream.decoder import Message
from quotestream.driver import Driver, Event
from quotestream.errors import BadMessage, CommandRefused, Ended
from quotestream.request import normalized, stream_url
from quotestream.running import Running
from quotestream.values import Change, Market, Quote, State
from server.quotes.instrument import normalize_symbol
from server.quotes.view import Form

FIELDS = Quote.__struct_fields__


def connect(
    url: str,
    *,
    token: str | TokenSource = "",
    symbols: Iterable[str] = (),
    fields: Sequence[str] = (),
    interval: float | str | None = None,
    format: Form | None = None,
) -> "Quotes":
    """Return a client for `async with`, on trio or asyncio, whichever runs.

    Entering the block waits for the first connection and its quotes, also while the server is away.
    Leaving it ends the connection.

    Arguments:
        url: such as `ws://127.0.0.1:8080`. Only `wss` hides the token on its way.
        token: a JSON Web Token, or a function or coroutine function that returns one. The function is
            called at the start, and each time that the server says that the token is not good any more.
        symbols: those to begin with; `["*"]` for all.
        fields: the fields of a quote to get, such as `["current_price", "volume"]`; none for all.
        interval: seconds, or text such as `250ms`, between two updates of a symbol; None for each.
        format: the form of the server's messages; None chooses the compact one if the server has it.

    Errors: ValueError for an address, a token or an interval that is not one. Entering raises Refused,
    and what `token` raises.
    """
    return Quotes(url, token, Core(symbols, format=format, fields=fields, interval=interval))


class Quotes(Mapping[str, Quote]):
    """The newest quote of each symbol, and an asynchronous iterator of their changes.

    It is made by `connect`. A lost connection comes back by itself and misses nothing: `state` and
    `missed` tell what the client knows at the moment. If the server refuses it for good, iterating and
    all commands raise Refused. The quotes stay.
    """

    def __init__(self, url: str, token: str | TokenSource, core: Core) -> None:
        self._url = stream_url(url)
        self._credential = Credential(token)
        self._core = core
        self._quotes: dict[str, Quote] = {}
        self._changed: dict[str, Change] = {}
        self._bars: list[Bars] = []
        self._failure: Exception | None = None
        self._ids = count(1)
        self._answers: dict[int, _Answer] = {}
        self._lag: float | None = None

    async def __aenter__(self) -> Self:
        self._driver: Driver = running_driver()
        self._event: Event = self._driver.event()
        self._running = Running(self._core, self._url, self._credential, self._driver, self._listen)
        self._beside = self._driver.beside()
        await self._beside.start(self._run)
        try:
            await self.until(lambda: self._core.connected)
            # Its answer is behind the first quotes.
            await self._command(lambda _: None)
        except BaseException:
            await self._leave()  # noqa: ASYNC102 (it waits for a cancelled task, as a nursery does)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._leave()  # noqa: ASYNC102 (as above)

    def __getitem__(self, symbol: str) -> Quote:
        return self._quotes[normalize_symbol(symbol)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._quotes)

    def __len__(self) -> int:
        return len(self._quotes)

    def __aiter__(self) -> AsyncIterator[Change]:
        return self

    async def __anext__(self) -> Change:
        """Return the change that waited longest. Changes of one symbol are merged until it is taken.

        The first changes are the first quotes. Two tasks that iterate share the changes.

        Errors: Refused, Ended, and what the token's function raises.
        """
        await self.until(lambda: bool(self._changed))
        return self._changed.pop(next(iter(self._changed)))

    def __repr__(self) -> str:
        return f"<Quotes of {self._url}: {self.state}, {len(self)} quotes>"

    @property
    def state(self) -> State:
        """Return whether the client is connected, and whether prices flow."""
        return self._core.state

    @property
    def reason(self) -> str:
        """Return why prices do not flow, why the connection was lost, or the code of a refusal."""
        return self._core.reason

    @property
    def missed(self) -> frozenset[str]:
        """Return the symbols whose quotes are not proven to be the newest; empty if nothing is missed.

        A symbol is here from a gap in its versions until its full quote comes, and after a reconnection
        until the server says what changed. The client has asked for it already.
        """
        return frozenset(self._core.document.missed)

    @property
    def lag(self) -> float | None:
        """Return the seconds between the server's taking of the newest change and its coming here.

        It is None before the first change. It compares two clocks, which should agree.
        """
        return self._lag

    @property
    def versions(self) -> Mapping[str, int]:
        """Return the version of each quote. A version grows by one with each change of a quote."""
        return dict(self._core.document.versions)

    @property
    def epoch(self) -> str:
        """Return the name of the sequence that the versions belong to."""
        return self._core.document.epoch

    @property
    def markets(self) -> Mapping[str, Market]:
        """Return the markets that are not open: quiet, halted or closed symbols."""
        return dict(self._core.markets)

    @property
    def next_open(self) -> datetime | None:
        """Return when the next session opens, while `state` is `closed`."""
        text = self._core.next_open
        return None if text is None else msgspec.convert(text, datetime)

    @property
    def interval(self) -> float:
        """Return the seconds between two updates of a symbol that `throttle` got; 0 for each change."""
        return self._core.interval

    @property
    def overload(self) -> float:
        """Return the seconds between two updates of a symbol in the server's overload, else 0."""
        return self._core.overload

    @property
    def errors(self) -> Sequence[CommandRefused]:
        """Return the last 100 errors of the server that no command raised: such as symbols of `connect`
        that do not exist.
        """
        return tuple(self._core.errors)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition()` is true. It is called after each message.

        Errors: Refused, Ended, and what the token's function raises.
        """
        while not condition():
            self._check()
            await self._event.wait()

    async def subscribe(self, symbols: Iterable[str]) -> None:
        """Add symbols, and wait for the server's answer. The quotes may come a little later.

        Without a connection, the next one asks for them. Symbols that the server refuses are not asked
        for again.

        Errors: CommandRefused, Refused, Ended.
        """
        wanted = normalized(symbols)
        new: list[str] = []

        def send(number: int) -> None:
            new.extend(self._core.subscribe(wanted, id=number))

        try:
            await self._command(send)
        except CommandRefused as refused:
            refused.symbols = refused.symbols or tuple(wanted)
            self._core.wanted.drop([symbol for symbol in new if symbol in refused.symbols])
            raise

    async def unsubscribe(self, symbols: Iterable[str]) -> None:
        """Give symbols up, and wait for the server's answer. Errors: CommandRefused, Refused, Ended."""
        wanted = normalized(symbols)
        await self._command(lambda number: self._core.unsubscribe(wanted, id=number))
        self._take([*self._quotes])

    async def throttle(self, interval: float | str) -> None:
        """Get each symbol at most once in `interval`: seconds, or text such as `250ms`. 0 ends that.

        The server rounds it up: `interval` tells the result.

        Errors: ValueError, CommandRefused, Refused, Ended.
        """
        before = self._core.wanted.interval
        try:
            await self._command(lambda number: self._core.throttle(interval, id=number))
        except CommandRefused:
            self._core.wanted.throttle(before)
            raise

    async def bars(self, symbols: Iterable[str], timeframe: str = "1m") -> Bars:
        """Subscribe to bars of `1m`, `5m`, `15m`, `30m`, `1h`, `4h`, `1d` or `1w`.

        Return an asynchronous iterator of them. The present bar comes at once, if there is one.

        Errors: CommandRefused, Refused, Ended.
        """
        bars = Bars(normalized(symbols), timeframe, self.until, self._no_bars)
        self._bars.append(bars)
        try:
            await self._command(lambda number: self._core.bars(bars.symbols, timeframe, id=number))
        except CommandRefused as refused:
            refused.symbols = refused.symbols or tuple(bars.symbols)
            bars.drop(refused.symbols)
            self._core.wanted.drop_bars(refused.symbols, timeframe)
            if not bars.symbols:
                self._bars.remove(bars)
            raise
        return bars

    async def _no_bars(self, bars: Bars) -> None:
        """Give up bars that no other iterator is about."""
        self._bars.remove(bars)
        others = {
            symbol
            for other in self._bars
            if other.timeframe == bars.timeframe
            for symbol in other.symbols
        }
        if left := [symbol for symbol in bars.symbols if symbol not in others]:
            await self._command(lambda number: self._core.no_bars(left, bars.timeframe, id=number))

    async def _command(self, send: Callable[[int], object]) -> None:
        """Send a command, and wait for the answer to a ping behind it.

        Commands are answered in order, so all answers to the command have come by then. If the
        connection is lost meanwhile, the next one asks for what is wanted.
        """
        self._check()
        number = next(self._ids)
        send(number)
        if not self._core.send(action="ping", id=number):
            return
        answer = self._answers[number] = _Answer(self._driver.event())
        try:
            await self._running.flush()
            await answer.event.wait()
        finally:
            del self._answers[number]
        self._check()
        if answer.error is not None:
            raise answer.error

    async def _run(self) -> None:
        try:
            await self._running.run()
        except Exception as failure:  # the application gets it from its next call
            self._failure = failure
            self._wake()

    async def _leave(self) -> None:
        self._failure = self._failure or Ended("the block of connect() is over")
        if self._core.state != "refused":
            self._core.state = "ended"
        self._wake()
        await self._beside.stop()

    def _check(self) -> None:
        if self._failure is not None:
            _raise(self._failure)

    def _wake(self) -> None:
        event, self._event = self._event, self._driver.event()
        event.set()
        if self._failure is not None or not self._core.connected:
            for answer in self._answers.values():
                answer.event.set()

    def _listen(self, message: Message) -> None:
        kind = message["type"]
        if kind == "quotes_patch":
            self._take(message["versions"])
            # A full quote's time says nothing of the way here.
            if message["ts"] and "epoch" not in message:
                self._lag = max(0.0, time() - message["ts"] / 1e6)
        elif kind == "ack" and message["action"] == "resume":
            self._take([*self._quotes])
        elif kind in ("bar", "bars_end", "bars_missed"):
            for bars in self._bars:
                bars.take(message)
        elif kind == "pong" and (answer := self._answers.get(message.get("id", 0))):
            answer.event.set()
        elif kind == "error" and (answer := self._answers.get(message.get("id", 0))):
            answer.refuse(self._core.errors.pop())
        for bars in self._bars:
            bars.rename(message.get("renamed", {}))
        self._wake()

    def _take(self, symbols: Iterable[str]) -> None:
        """Note what is new of `symbols`. Errors: BadMessage for a quote with values of other types."""
        document = self._core.document
        for symbol in symbols:
            old, new = self._quotes.get(symbol), None
            if (values := document.quotes.get(symbol)) is not None:
                try:
                    new = msgspec.convert(values | {"symbol": symbol}, Quote)
                except msgspec.ValidationError as error:
                    raise BadMessage(
                        f"the server sent a quote that is not valid: {error}"
                    ) from None
                self._quotes[symbol] = new
            elif old is not None:
                del self._quotes[symbol]
            if fields := _differences(old, new):
                before = self._changed.pop(symbol, None)
                version = document.versions.get(symbol, before.version if before else 0)
                merged = fields | before.fields if before else fields
                self._changed[symbol] = Change(symbol, new, version, merged)


class _Answer:
    """The server's answer to a command: it is there once the event is set."""

    def __init__(self, event: Event) -> None:
        self.event = event
        self.error: CommandRefused | None = None

    def refuse(self, error: CommandRefused) -> None:
        """Note a refusal. The server sends one for each reason: the error names the symbols of all."""
        if (first := self.error) is not None:
            error = CommandRefused(first.code, first.message, first.symbols + error.symbols)
        self.error = error


def _differences(old: Quote | None, new: Quote | None) -> frozenset[str]:
    """Return the names of the fields that differ, of a quote that is not there all of them."""
    if old is None or new is None:
        return frozenset() if old is new else frozenset(FIELDS)
    return frozenset(name for name in FIELDS if getattr(old, name) != getattr(new, name))


def _raise(failure: Exception) -> NoReturn:
    """Raise an exception that may be raised several times, each time with its own traceback only."""
    raise failure.with_traceback(None)
