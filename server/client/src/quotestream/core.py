"""The client without I/O: messages and ends of connections in, events and commands out.

A driver makes connections and calls, in this order: `target`, then `opened` and `receive` for each
message, and one of the methods that end a connection. It sends `outgoing()` after each call. The core
has no clock: its caller passes `now`, in seconds of any steady clock.
"""

import re
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, ClassVar, NamedTuple

import jsonpatch
from msgspec import convert

from quotestream.decoder import UNREADABLE, Decoder, Message, not_valid
from quotestream.document import Document
from quotestream.errors import BadMessage, CommandRefused, Refused
from quotestream.messages import Acknowledged, Patch, Reconnect, Refusal, Resumed, Status, Throttled
from quotestream.request import EVERYTHING, Wanted, normalized, resuming
from quotestream.values import Market, State
from server.quotes.view import Form
from server.reconnecting import Backoff, ConnectionFailed, asked_by_close, is_final, readable

TOO_LONG = {414, 431}
"""Statuses of a request whose `resume` may be what made it too long."""

UNAUTHORIZED = 401
"""The status for a token that is not good."""

TOKEN_EXPIRED = 4401
"""The close code for a token that expired, or is not good."""

FINAL = {4400: "bad_request", TOKEN_EXPIRED: "unauthorized", 4403: "forbidden"}
"""Close codes after which the same request would fare no better, and the code if none is given."""

RESYNC_PATIENCE = 5.0
"""Seconds without the full quote after which a client asks for it again: many times a slow answer."""

MAX_COMMAND = 12 * 1024
"""Bytes of the symbols in one command: a server takes messages of 16 KiB."""

CONNECTED: Mapping[str, State] = {"live": "live", "stale": "stale", "closed": "closed"}
"""The states that a server tells. A later server may tell others."""

STOPPED = {"halted", "closed"}
"""Statuses of a symbol's market that last until its publisher sends `open`."""

MOST_SYMBOLS = 1_000_000
"""Symbols that a client holds if it asked for all: a hundred times the instruments of an exchange."""

SPARE_SYMBOLS = 1000
"""Symbols that a client holds beyond those that it asked for by name. There are few, as of instruments
that exchanged their symbols. A server that sends more of them would fill the memory.
"""

KEPT_ERRORS = 100
"""Errors of the server that are kept for the application."""

_REASON = re.compile(r"([a-z_]+): (.+)", re.DOTALL)


class Ending(NamedTuple):
    """How a connection, or an attempt to make one, ended.

    `asked` is how long the server wants to be left alone, in seconds. `refusal` is final, unless
    `renewable` and the application has another token.
    """

    problem: str
    asked: float = 0.0
    renewable: bool = False
    refusal: Refused | None = None


class Core:
    """One client's knowledge: its quotes, what they prove, whether prices flow, and what to ask for.

    Arguments:
        symbols: the symbols to ask for, `*` for all.
        format: the form of the server's messages; None for compact if the server has it, else JSON.
        fields: the fields of a quote to get; none for all.
        interval: seconds or text such as `250ms` between two updates of a symbol; None for each.
    """

    def __init__(
        self,
        symbols: Iterable[str],
        *,
        format: Form | None = None,
        fields: Sequence[str] = (),
        interval: float | str | None = None,
    ) -> None:
        self.document = Document()
        self.wanted = Wanted(symbols, format, fields, interval)
        self.state: State = "connecting"
        self.reason = ""
        """Why prices do not flow, why the connection was lost, or the code of a refusal."""
        self.next_open: str | None = None
        self.markets: dict[str, Market] = {}
        self.overload = 0.0
        """Seconds between two updates of a symbol while the server is overloaded, else 0."""
        self.interval = 0.0
        """Seconds between two updates of a symbol that the server granted to `throttle`, else 0."""
        self.errors: deque[CommandRefused] = deque(maxlen=KEPT_ERRORS)
        self._backoff = Backoff()
        self._decoder: Decoder | None = None
        self._commands: list[str | bytes] = []
        self._asked: dict[str, float] = {}
        self._dropped: set[str] = set()
        self._resume = True
        self._resumed = False
        self._after = 0.0

    @property
    def connected(self) -> bool:
        """Return whether there is a connection."""
        return self._decoder is not None

    def target(self, url: str, used: int = 0) -> str:
        """Return the address of the next connection. `used` are the bytes of the request's secrets."""
        self.document.forget(self._dropped)
        self._dropped.clear()
        query = self.wanted.query(self.document.quotes)
        target = f"{url}?{query}".removesuffix("?")
        resumed = target
        if self._resume and query:
            resumed = resuming(target, self.document.position, used)
        self._resumed, self._resume = resumed != target, True
        return resumed

    def opened(self, subprotocol: str | None, now: float) -> None:
        """Begin a connection. `subprotocol` is the server's choice, None for JSON."""
        self._backoff.accepted(now)
        self._decoder = Decoder(self.document, subprotocol, selected=bool(self.wanted.fields))
        self.document.reconnected()
        self.state, self.reason, self.next_open = "live", "", None
        self.markets, self.overload, self.interval = {}, 0.0, 0.0
        for timeframe, symbols in self.wanted.bars.items():
            self._send_about("bars", symbols, action="subscribe", timeframe=timeframe)

    def receive(self, data: str | bytes, now: float) -> Iterator[Message]:
        """Take one message. Yield each message of the JSON form that it says, once it is applied.

        Errors: BadMessage for one that cannot be read. The driver then ends the connection.
        """
        assert self._decoder is not None, "a connection is open"
        for message in self._decoder.messages(data):
            try:
                self._apply(message, now)
            except UNREADABLE as error:
                raise not_valid(error) from None
            except jsonpatch.JsonPatchException as error:
                raise BadMessage(f"the server sent a patch that is not valid: {error}") from None
            yield message

    def outgoing(self) -> Iterator[str | bytes]:
        """Take the commands that wait to be sent."""
        while self._commands:
            yield self._commands.pop(0)

    def send(self, **command: Any) -> bool:
        """Queue a command in the connection's form. Return False without a connection."""
        if self._decoder is None:
            return False
        self._commands.append(self._decoder.command(**command))
        return True

    def subscribe(self, symbols: Iterable[str], **more: Any) -> list[str]:
        """Ask for more symbols, now or with the next connection. Return those that are new."""
        symbols = normalized(symbols)
        new = self.wanted.add(symbols)
        self._dropped.difference_update(symbols)
        self._send_about("symbols", symbols, action="subscribe", **more)
        return new

    def unsubscribe(self, symbols: Iterable[str], **more: Any) -> None:
        """Give symbols up. Without a connection, their quotes go at once."""
        symbols = normalized(symbols)
        self.wanted.drop(symbols)
        everything = "*" in symbols
        self._dropped.update(self.document.quotes.keys() if everything else symbols)
        self._send_about("symbols", symbols, action="unsubscribe", **more)
        if not self.connected:
            self.document.forget([*self._dropped])

    def throttle(self, interval: float | str, **more: Any) -> None:
        """Ask for each symbol at most once in `interval`; 0 for each change. Errors: ValueError."""
        self.wanted.throttle(interval)
        self.send(action="throttle", interval=interval, **more)

    def bars(self, symbols: Iterable[str], timeframe: str, **more: Any) -> None:
        """Ask for bars of this length, now and after each reconnection."""
        symbols = normalized(symbols)
        self.wanted.add_bars(symbols, timeframe)
        self._send_about("bars", symbols, action="subscribe", timeframe=timeframe, **more)

    def no_bars(self, symbols: Iterable[str], timeframe: str, **more: Any) -> None:
        """Give bars of this length up."""
        symbols = normalized(symbols)
        self.wanted.drop_bars(symbols, timeframe)
        self._send_about("bars", symbols, action="unsubscribe", timeframe=timeframe, **more)

    def closed(self, code: int, reason: str) -> Ending:
        """End a connection that the server closed, or that broke: then `code` is 1006."""
        given = _REASON.fullmatch(reason)
        text = readable(given[2] if given else reason) or f"the connection ended with code {code}"
        if code == TOKEN_EXPIRED and not given:
            text = "the token expired"
        refusal = None
        if default := FINAL.get(code):
            refusal = Refused(given[1] if given else default, text)
        asked = asked_by_close(code)
        return self._ended(Ending(text, asked, code == TOKEN_EXPIRED, refusal))

    def failed(self, failure: ConnectionFailed) -> Ending:
        """End an attempt that got no connection, or a connection whose server fell silent."""
        status, problem = failure.status, str(failure)
        self._resume = status not in TOO_LONG
        refusal = None
        if is_final(status) and (self._resume or not self._resumed):
            refusal = Refused(failure.code or f"http_{status}", problem)
        return self._ended(Ending(problem, failure.retry_after, status == UNAUTHORIZED, refusal))

    def broken(self, problem: str) -> Ending:
        """End a connection whose messages cannot be read."""
        return self._ended(Ending(problem))

    def refuse(self, refusal: Refused) -> None:
        """Note that the client does not come back."""
        self.state, self.reason = "refused", refusal.code

    def wait(self, ending: Ending, now: float) -> float:
        """Return the seconds to wait before the next connection."""
        self.state, self.reason = "waiting", ending.problem
        return self._backoff.next(now, ending.asked)

    def _ended(self, ending: Ending) -> Ending:
        self._decoder = None
        self._commands.clear()
        self._asked.clear()
        # `reconnect` holds however its connection ends, but not for a later one.
        after, self._after = self._after, 0.0
        return ending._replace(asked=max(ending.asked, after))

    def _apply(self, message: Message, now: float) -> None:
        handler = self._HANDLERS.get(message["type"])
        if handler is not None:
            handler(self, message, now)
        late = [s for s, asked in self._asked.items() if now - asked >= RESYNC_PATIENCE]
        if late:
            self._resync(late, now)

    def _patch(self, message: Message, now: float) -> None:
        patch = convert(message, Patch)
        missed = self.document.apply(message)
        self._check_number(self.document.versions)
        if missed:
            self._resync(missed, now)
        if self._asked:
            self._asked = {s: at for s, at in self._asked.items() if s in self.document.missed}
        self._dropped &= self.document.quotes.keys()
        self.wanted.rename(patch.renamed)
        removed = message["versions"].keys() - self.document.versions.keys()
        if removed and self.markets:
            self._leave_markets(removed)

    def _leave_markets(self, symbols: Iterable[str]) -> None:
        """Forget the markets of those `symbols` that are neither held nor wanted any more."""
        wanted = {*chain(self.wanted.symbols, *self.wanted.bars.values())}
        if EVERYTHING not in wanted:
            for symbol in symbols:
                if symbol not in self.document.versions and symbol not in wanted:
                    self.markets.pop(symbol, None)

    def _check_number(self, held: Collection[str]) -> None:
        """Refuse many more symbols than the client asked for, and forget them. Errors: ValueError."""
        lists = [self.wanted.symbols, *self.wanted.bars.values()]
        asked = sum(map(len, lists)) + len(self._dropped)
        number = len(held)
        if number <= asked + SPARE_SYMBOLS:
            return
        wanted = {*chain.from_iterable(lists)}
        if EVERYTHING not in wanted or number > MOST_SYMBOLS:
            # The next request would ask for them.
            self.document.forget(self.document.versions.keys() - wanted)
            raise ValueError(f"{number} symbols, and the client asked for {asked}")

    def _resync(self, symbols: Sequence[str], now: float) -> None:
        self._asked |= dict.fromkeys(symbols, now)
        self._send_about("symbols", symbols, action="resync")

    def _send_about(self, key: str, symbols: Sequence[str], **command: Any) -> None:
        """Queue a command about `symbols`, in several parts if they are too long for one message."""
        for part in in_parts(symbols):
            self.send(**command, **{key: part})

    def _ack(self, message: Message, _: float) -> None:
        convert(message, Acknowledged)
        if message["action"] == "resume":
            self.document.recovered(convert(message, Resumed).recovered)
        elif message["action"] == "unsubscribe":
            # No patch removes a symbol without a quote.
            self._leave_markets([*self.markets])
        elif message["action"] == "throttle":
            self.interval = convert(message, Throttled).interval

    def _error(self, message: Message, _: float) -> None:
        error = convert(message, Refusal)
        text = readable(error.message)
        reasons = dict.fromkeys(error.symbols, text)
        self.errors.append(CommandRefused(readable(error.code), text, reasons))

    def _status(self, message: Message, _: float) -> None:
        news = convert(message, Status)
        if news.interval is not None:
            self.overload = news.interval
        for symbol in news.symbols:
            market = self.markets.get(symbol)
            if market and market.status in STOPPED and news.status in ("live", "stale"):
                # A market that is halted is quiet, too, and a price of it does not end the halt.
                continue
            self.markets.pop(symbol, None)
            if news.status not in ("live", "open"):
                self.markets[symbol] = Market(news.status, news.reason)
        self._check_number(self.markets)
        if not news.symbols and (state := CONNECTED.get(news.status)):
            self.state, self.reason = state, "" if state == "live" else news.reason
            self.next_open = message.get("next_open")

    def _reconnect(self, message: Message, _: float) -> None:
        self._after = convert(message, Reconnect).after_ms / 1000

    _HANDLERS: ClassVar[Mapping[str, Callable[["Core", Message, float], None]]] = {
        "quotes_patch": _patch,
        "ack": _ack,
        "error": _error,
        "status": _status,
        "reconnect": _reconnect,
    }


def in_parts(symbols: Sequence[str]) -> list[list[str]]:
    """Return `symbols` in parts of which each fits into one command."""
    parts: list[list[str]] = [[]]
    size = 0
    for symbol in symbols:
        length = len(symbol.encode()) + 4
        if size + length > MAX_COMMAND:
            parts.append([])
            size = 0
        parts[-1].append(symbol)
        size += length
    return [part for part in parts if part]
