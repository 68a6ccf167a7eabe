"""The client: a mapping of quotes that keeps itself up to date, and the changes as they come.

The client's task reads and applies messages. It never waits for the application: an application that
does not read gets the newest quote of each symbol later, however many changes there were meanwhile.
"""

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from time import time
from types import TracebackType
from typing import NoReturn, Self

import msgspec

from quotestream.answers import Answers
from quotestream.bars import Bars
from quotestream.changes import Changes
from quotestream.choosing import running_driver
from quotestream.core import Core
from quotestream.credential import Credential, TokenSource
from quotestream.decoder import Message
from quotestream.driver import Driver, Event
from quotestream.errors import CommandRefused, Ended, Misused, Refused
from quotestream.request import normalized, stream_url
from quotestream.running import Running
from quotestream.values import Change, Market, Quote, State
from server.quotes.instrument import normalize_symbol
from server.quotes.view import Form

_log = logging.getLogger("quotestream")


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

    Errors: ValueError for an address, a token, a symbol, an interval or a format that is not one;
    TypeError for one text in place of a list. Entering raises Refused, and what `token` raises.
    """
    return Quotes(url, token, Core(symbols, format=format, fields=fields, interval=interval))


class Quotes(Mapping[str, Quote]):
    """The newest quote of each symbol, and an asynchronous iterator of their changes.

    It is made by `connect`. A lost connection comes back by itself and misses nothing: `state` and
    `missed` tell what the client knows at the moment. If the server refuses it for good, iterating and
    all commands raise Refused. The quotes stay.

    Quotes come and go while a coroutine waits. To wait within a loop over the mapping, copy it first.
    """

    def __init__(self, url: str, token: str | TokenSource, core: Core) -> None:
        self._url = stream_url(url)
        self._credential = Credential(token)
        self._core = core
        self._changes = Changes(core.document)
        self._bars: list[Bars] = []
        self._answers = Answers()
        self._failure: Exception | None = None
        self._lag: float | None = None
        self._is_entered = self._is_inside = self._is_stale = False

    async def __aenter__(self) -> Self:
        if self._is_entered:
            raise Misused("a client serves one block: call connect() again for the next")
        self._driver: Driver = running_driver()
        self._is_entered = True
        self._event: Event = self._driver.event()
        self._running = Running(self._core, self._url, self._credential, self._driver, self._listen)
        self._beside = self._driver.beside()
        await self._beside.start(self._run)
        try:
            await self.until(lambda: self._core.connected)
            # The answer to its ping is behind the first quotes.
            while not await self._command(lambda _: None):
                await self.until(lambda: self._core.connected)
        except BaseException:
            await self._leave()  # noqa: ASYNC102 (it waits for a cancelled task, as a nursery does)
            raise
        self._is_inside = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._leave()  # noqa: ASYNC102 (as above)

    def __getitem__(self, symbol: str) -> Quote:
        if not isinstance(symbol, str):
            # `in` and `get` take any key.
            raise KeyError(symbol)
        return self._changes.quotes[normalize_symbol(symbol)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._changes.quotes)

    def __len__(self) -> int:
        return len(self._changes.quotes)

    def __aiter__(self) -> AsyncIterator[Change]:
        return self

    async def __anext__(self) -> Change:
        """Return the change that waited longest. Changes of one symbol are merged until it is taken.

        The first changes are the first quotes. Two tasks that iterate share the changes.

        Errors: Refused, Ended, and what the token's function raises.
        """
        await self.until(lambda: bool(self._changes))
        return self._changes.pop()

    def __repr__(self) -> str:
        return f"<Quotes of {self._url}: {self.state}, {len(self)} quotes>"

    @property
    def state(self) -> State:
        """Return whether the client is connected, and whether prices flow."""
        has_ended = self._failure is not None and not isinstance(self._failure, Refused)
        return "ended" if has_ended else self._core.state

    @property
    def reason(self) -> str:
        """Return why prices do not flow, why the connection was lost, the code of a refusal, or the
        error that ended the client.
        """
        if self._failure is None or isinstance(self._failure, Refused | Ended):
            return self._core.reason
        return repr(self._failure)

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
        for again. A command that is cancelled may still be carried out.

        Errors: CommandRefused, Refused, Ended; TypeError for one text in place of a list.
        """
        wanted = normalized(symbols)
        new: list[str] = []

        def send(number: int) -> None:
            new.extend(self._core.subscribe(wanted, id=number))

        try:
            await self._command(send, wanted)
        except CommandRefused as refused:
            self._core.wanted.drop([symbol for symbol in new if symbol in refused.reasons])
            raise

    async def unsubscribe(self, symbols: Iterable[str]) -> None:
        """Give symbols up, and wait for the server's answer. Errors: as of `subscribe`."""
        wanted = normalized(symbols)
        await self._command(lambda number: self._core.unsubscribe(wanted, id=number), wanted)
        self._changes.note([*self])
        self._wake()

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

        Return an asynchronous iterator of them. The present bar comes at once, if there is one. If the
        server refuses some of the symbols, no bars come of the others either.

        Errors: ValueError for another timeframe; otherwise as of `subscribe`.
        """
        self._check()
        bars = Bars(normalized(symbols), timeframe, self.until, self._stop_bars)
        self._bars.append(bars)
        try:
            await self._command(
                lambda number: self._core.bars(bars.symbols, timeframe, id=number), bars.symbols
            )
        except BaseException as error:
            # The application gets no iterator that it could stop.
            self._bars.remove(bars)
            unused = self._only_of(bars)
            if isinstance(error, CommandRefused):
                refused = [each for each in unused if each in error.reasons]
                self._core.wanted.drop_bars(refused, timeframe)
                unused = [each for each in unused if each not in refused]
            self._core.no_bars(unused, timeframe)
            self._running.flush()
            raise
        return bars

    async def _stop_bars(self, bars: Bars) -> None:
        if bars in self._bars:
            self._bars.remove(bars)
            self._wake()
            if unused := self._only_of(bars):
                await self._command(
                    lambda number: self._core.no_bars(unused, bars.timeframe, id=number), unused
                )

    def _only_of(self, bars: Bars) -> list[str]:
        """Return the symbols of `bars` that no other iterator of its timeframe has."""
        others = [each for each in self._bars if each.timeframe == bars.timeframe]
        held = {symbol for other in others for symbol in other.symbols}
        return [symbol for symbol in bars.symbols if symbol not in held]

    async def _command(self, send: Callable[[int], object], symbols: Sequence[str] = ()) -> bool:
        """Send a command about `symbols`, and wait for the answer to a ping behind it. Return whether
        that came.

        The server answers in order, so all answers to the command have come by then. If there is no
        connection, or it is lost meanwhile, the next one asks for what is wanted.

        Errors: CommandRefused, Refused, Ended.
        """
        self._check()
        answer = self._answers.begin(self._driver.event(), symbols)
        try:
            send(answer.id)
            if self._core.send(action="ping", id=answer.ping):
                self._running.flush()
                await answer.event.wait()
        finally:
            self._answers.end(answer)
        self._check()
        answer.check()
        return answer.has_come

    async def _run(self) -> None:
        try:
            await self._running.run()
        except Exception as failure:  # the application gets it from its next call
            if self._is_inside:
                # Entering raises it at once, but a block may never ask.
                _log.warning("%s: the client ends: %r", self._url, failure)
            self._failure = self._failure or failure
        finally:
            # A cancelled task, such as one that the token's function awaits, ends the client, too.
            self._failure = self._failure or Ended("the client's task was cancelled")
            self._wake()

    async def _leave(self) -> None:
        self._failure = self._failure or Ended("the block of connect() is over")
        self._wake()
        await self._beside.stop()

    def _check(self) -> None:
        if not self._is_entered:
            raise Misused("enter the client first: async with quotestream.connect(...) as quotes")
        if self._failure is not None:
            _raise(self._failure)

    def _wake(self) -> None:
        event, self._event = self._event, self._driver.event()
        event.set()
        if self._failure is not None or not self._core.connected:
            self._answers.give_up()

    def _listen(self, message: Message) -> None:
        """Take a message that the core has applied. Errors: BadMessage."""
        kind, errors = message["type"], self._core.errors
        if kind == "quotes_patch":
            self._changes.note(message["versions"])
            self._measure(message)
            for bars in self._bars:
                bars.rename(message.get("renamed", {}))
        elif kind == "connected" or (kind == "ack" and message["action"] == "resume"):
            # The core has forgotten symbols that were given up, or that the server left out.
            self._changes.note([*self])
        elif kind in ("bar", "bars_end", "bars_missed"):
            for bars in self._bars:
                bars.take(message)
        elif kind in ("ack", "pong"):
            self._answers.take(message)
        elif kind == "error" and self._answers.take(message, errors[-1]):
            errors.pop()
        elif kind == "connection":
            problem, wait = message["problem"], message["retry_in"]
            _log.warning("%s: %s; the next attempt comes in %.1f s", self._url, problem, wait)
        if kind in ("connected", "status"):
            self._tell_bars(interrupted=kind == "connected" or self._is_stale)
        self._wake()

    def _tell_bars(self, *, interrupted: bool) -> None:
        """Note that bars come again, if prices flow now. `interrupted`: they did not before."""
        self._is_stale = self.state == "stale"
        if interrupted and not self._is_stale:
            for bars in self._bars:
                bars.interrupted()

    def _measure(self, message: Message) -> None:
        """Measure the lag. The time of a full quote says nothing of the way here."""
        ts = message.get("ts")
        if ts and isinstance(ts, int) and "epoch" not in message:
            self._lag = max(0.0, time() - ts / 1e6)


def _raise(failure: Exception) -> NoReturn:
    """Raise an exception that may be raised several times, each time with its own traceback only."""
    raise failure.with_traceback(None)
