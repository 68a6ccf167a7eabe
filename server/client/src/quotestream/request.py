"""The request of a client that connects: symbols, fields, form, interval and position."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from urllib.parse import quote, urlsplit, urlunsplit

from quotestream.decoder import subprotocols
from server.quotes.duration import SHOWN, seconds_of
from server.quotes.instrument import normalize_symbol
from server.quotes.view import FORMS, Form

MAX_REQUEST = 16 * 1024 - 512
"""Bytes of a request line and its Authorization header; the rest of 16 KiB, a server's limit, is for
the headers that a WebSocket library and proxies add.
"""

MAX_RESUME = 8 * 1024
"""Characters of a position as it is sent. The server sends the full quote of each symbol that does not
fit.
"""

EVERYTHING = "*"
"""The symbol that stands for all symbols."""

PATH = "/ws/quotes"
"""The path of a server's stream, for an address without one."""


def is_word(text: str) -> bool:
    """Return whether `text` fits into a request's line or header."""
    return text.isascii() and text.isprintable() and " " not in text


def normalized(symbols: Iterable[str]) -> list[str]:
    """Return the symbols in upper case, each once.

    Errors: TypeError for one text, and for a symbol that is not one; ValueError for several in one.
    """
    symbols = _listed("symbols", symbols)
    for symbol in symbols:
        if "," in symbol:
            raise ValueError(f"{symbol!r} is not one symbol: give each as a text of its own")
    return [*dict.fromkeys(map(normalize_symbol, symbols))]


def stream_url(url: str) -> str:
    """Return the address of the stream: `http` becomes `ws`, and no path becomes `/ws/quotes`.

    Errors: ValueError for another kind of address. It does not show the address, as that may hold a
    token.
    """
    try:
        parts = urlsplit(url)
        scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
        host = (parts.hostname or "").encode("idna")
        good = scheme in ("ws", "wss") and host and parts.port != 0 and is_word(url)
    # It includes UnicodeError, which a name raises that DNS cannot have.
    except ValueError:
        good = False
    if not good:
        raise ValueError("url is not an address such as ws://127.0.0.1:8080/ws/quotes")
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("url has a query, a fragment or a user: use the arguments of connect()")
    return urlunsplit((scheme, parts.netloc, parts.path.rstrip("/") or PATH, "", ""))


class Wanted:
    """The symbols, bars and fields to ask for, the interval, and the form of the messages.

    Arguments:
        format: None for the compact form if the server has it, otherwise JSON.
        fields: the fields of a quote to get; none for all.
        interval: seconds, or text such as `250ms`; None for each change.

    Errors: ValueError for a format or an interval that is not one; TypeError for one text in place of a
    list.
    """

    def __init__(
        self,
        symbols: Iterable[str],
        format: Form | None = None,
        fields: Sequence[str] = (),
        interval: float | str | None = None,
    ) -> None:
        if format not in (None, *FORMS):
            raise ValueError(f"{format!r} is not one of the forms {', '.join(FORMS)}")
        self.fields = _listed("fields", fields)
        self.symbols = normalized(symbols)
        self.bars: dict[str, list[str]] = {}
        """The symbols of which bars are wanted, by timeframe."""
        self.subprotocols = subprotocols(format)
        self.interval = _interval(interval)

    def throttle(self, interval: float | str | None) -> None:
        """Ask for this interval. Errors: ValueError for one that is not a duration."""
        self.interval = _interval(interval)

    def add(self, symbols: Iterable[str]) -> list[str]:
        """Ask for `symbols`, too. Return those that are new."""
        new = [symbol for symbol in symbols if symbol not in self.symbols]
        self.symbols += new
        return new

    def drop(self, symbols: Collection[str]) -> None:
        """Ask no longer for `symbols`."""
        if EVERYTHING in symbols:
            self.symbols = []
        self.symbols = [symbol for symbol in self.symbols if symbol not in symbols]

    def add_bars(self, symbols: Iterable[str], timeframe: str) -> None:
        """Ask for the bars of `symbols`, too."""
        held = self.bars.get(timeframe, [])
        self.bars[timeframe] = [*dict.fromkeys([*held, *symbols])]

    def drop_bars(self, symbols: Collection[str], timeframe: str) -> None:
        """Ask no longer for the bars of `symbols`."""
        held = [] if EVERYTHING in symbols else self.bars.get(timeframe, [])
        left = [symbol for symbol in held if symbol not in symbols]
        self.bars.pop(timeframe, None)
        if left:
            self.bars[timeframe] = left

    def rename(self, new: Mapping[str, str]) -> None:
        """Ask for the new symbols of renamed instruments from the next connection on."""
        if new:
            self.symbols = [new.get(symbol, symbol) for symbol in self.symbols]
            self.bars = {
                timeframe: [new.get(symbol, symbol) for symbol in symbols]
                for timeframe, symbols in self.bars.items()
            }

    def query(self, held: Iterable[str]) -> str:
        """Return the request's query, without a position. `held` are the symbols of the document: if
        two instruments exchanged their symbols, only one of them was told as renamed.
        """
        symbols = self.symbols
        if EVERYTHING not in symbols:
            symbols = [*dict.fromkeys([*symbols, *held])]
        parts = [f"symbols={quote(','.join(symbols), safe=',*')}"] if symbols else []
        if self.fields:
            parts.append(f"fields={quote(','.join(self.fields), safe=',')}")
        if self.interval is not None:
            parts.append(f"interval={quote(self.interval, safe='')}")
        return "&".join(parts)


def resuming(target: str, position: str, used: int) -> str:
    """Return `target` with the part of `position` for which a request has room besides `used` bytes."""
    used += len(target) + len("&resume=")
    text = quote(position, safe=",:=")
    room = max(0, min(MAX_RESUME, MAX_REQUEST - used))
    if len(text) > room:
        text = text[: room + 1].rpartition(",")[0]
    return f"{target}&resume={text}" if text else target


def _interval(interval: float | str | None) -> str | None:
    """Return an interval as the server reads it, None for one of 0."""
    try:
        if interval is None or not seconds_of(interval):
            return None
        # Without an exponent, which a server does not read.
        return interval if isinstance(interval, str) else f"{Decimal(str(interval)):f}"
    except ArithmeticError:
        # A number that no float holds, and True.
        raise ValueError(f"{str(interval)[:SHOWN]} is not a duration") from None


def _listed(name: str, values: Iterable[str]) -> list[str]:
    """Return the texts of a list. Errors: TypeError for one text, and for another value in the list."""
    # One text is an iterable of its characters.
    if isinstance(values, str):
        raise TypeError(f"{name} is a list such as [{values!r}], not one text")
    values = [*values]
    for value in values:
        if not isinstance(value, str):
            raise TypeError(f"{name} has {value!r}, which is not a text")
    return values
