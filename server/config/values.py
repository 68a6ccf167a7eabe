"""The types of settings: how each value is written, and which values are allowed."""

import re
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qs, urlsplit

from msgspec import Meta

from server.quotes.duration import parse_duration
from server.quotes.instrument import normalize_symbol
from server.sessions.calendar import ALLOWED, Calendar

LONGEST_DURATION = 10_000 * 86_400.0
"""Seconds: 27 years. Redis, SQLite and timers count their milliseconds in numbers with a bound."""


class Duration(float):
    """Seconds, more than zero; written `250ms`, `4s`, `30m`, `1h`, `7d` or plain seconds."""

    @classmethod
    def parse(cls, text: str) -> "Duration":
        """Errors: ValueError."""
        seconds = parse_duration(text)
        if not 0 < seconds <= LONGEST_DURATION:
            raise ValueError
        return cls(seconds)


class Delay(float):
    """Seconds, zero or more; written as a Duration."""

    @classmethod
    def parse(cls, text: str) -> "Delay":
        """Errors: ValueError."""
        seconds = parse_duration(text)
        if seconds > LONGEST_DURATION:
            raise ValueError
        return cls(seconds)


class NameList(tuple[str, ...]):
    """Comma-separated names."""

    @classmethod
    def parse(cls, text: str) -> "NameList":
        """Never fails; empty names are dropped."""
        return cls(name for part in text.split(",") if (name := part.strip()))


DEFAULT_PORTS = {"http": 80, "https": 443}
"""Ports that a browser leaves out of an origin."""


class Origins(NameList):
    """Comma-separated origins as browsers send them (RFC 6454 §6.2)."""

    @classmethod
    def parse(cls, text: str) -> "Origins":
        """Errors: ValueError for a text that no browser sends: it would allow no page."""
        origins = cls(name.lower() for name in NameList.parse(text))
        if not all(origin == "null" or _is_origin(origin) for origin in origins):
            raise ValueError
        return origins


def _is_origin(text: str) -> bool:
    """Return whether a browser sends the text: a scheme, a host, and a port that is not the scheme's.

    Errors: ValueError for a port that is not a number.
    """
    url = urlsplit(text)
    port = f":{url.port}" if url.port not in (None, DEFAULT_PORTS.get(url.scheme)) else ""
    host = f"[{url.hostname}]" if ":" in (url.hostname or "") else url.hostname
    return (
        bool(host) and text.isascii() and "*" not in text and text == f"{url.scheme}://{host}{port}"
    )


class OriginsOrAny(Origins):
    """Origins, or `*` for any page."""

    @classmethod
    def parse(cls, text: str) -> "OriginsOrAny":
        """Errors: ValueError."""
        return cls(("*",) if text.strip() == "*" else Origins.parse(text))


_HOST_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?")


class HostNames(NameList):
    """Comma-separated names of hosts, or `*` for any."""

    @classmethod
    def parse(cls, text: str) -> "HostNames":
        """Errors: ValueError for a text that no browser sends as a name: it would allow no request."""
        names = cls(name.lower() for name in NameList.parse(text))
        if names != ("*",) and not all(map(_HOST_NAME.fullmatch, names)):
            raise ValueError
        return names


class WebSocketUrl(str):
    """The address of a WebSocket server."""

    @classmethod
    def parse(cls, text: str) -> "WebSocketUrl":
        """Errors: ValueError."""
        return cls(_checked_url(text, ("ws", "wss")))


class Networks(tuple[IPv4Network | IPv6Network, ...]):
    """Comma-separated networks in CIDR notation (RFC 4632 §3.1), or single addresses."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> "Networks":
        """Errors: ValueError, also for an address with bits beyond its network's prefix."""
        return cls(ip_network(name) for name in NameList.parse(text))


class DatabaseUrl(str):
    """The address of Postgres: one host, or several of which the first that answers is taken."""

    @classmethod
    def parse(cls, text: str) -> "DatabaseUrl":
        """Errors: ValueError."""
        return cls(_checked_url(text, ("postgresql", "postgres")))


class RedisUrl(str):
    """The address of Redis. Other options of the connection, such as timeouts, are the server's own."""

    @classmethod
    def parse(cls, text: str) -> "RedisUrl":
        """Errors: ValueError."""
        for option in parse_qs(urlsplit(text).query, keep_blank_values=True):
            if option not in ("client_name", "db", "protocol") and not option.startswith("ssl_"):
                raise ValueError
        return cls(_checked_url(text, ("redis", "rediss", "unix")))


def _checked_url(text: str, schemes: Sequence[str]) -> str:
    url = urlsplit(text)
    for host in url.netloc.rpartition("@")[2].split(","):
        one = urlsplit(f"//{host}")
        # Both raise ValueError: for a port that is not a number, for a name that DNS cannot have.
        _ = one.port
        (one.hostname or "").encode("idna")
    if url.scheme not in schemes or not (url.netloc or url.path):
        raise ValueError
    return text


VENUES = ("coinbase", "kraken", "binance", "alpaca")
"""Live public feeds."""

MAX_VENUE_SYMBOLS = 500
"""Symbols of one venue: Binance allows 1,024 streams on a connection, and each symbol has two."""


class FeedChoice(str):
    """Where prices come from: `simulator`, `push`, `stream:KEY`, a venue's symbols, `replay:PATH`, or
    `bus` for other instances.

    `push+coinbase:BTC-USD+simulator:TEST1,TEST2` is three feeds at once. A feed with symbols moves no
    others.
    """

    @classmethod
    def parse(cls, text: str) -> "FeedChoice":
        """Errors: ValueError."""
        choice = cls(text)
        feeds = choice.feeds
        whole = text in ("simulator", "push", "bus") or (len(feeds) == 1 and choice.replay_path)
        several = len(feeds) == text.count("+") + 1 and "push:" not in text
        if not whole and not (several and all(map(choice._is_part, feeds))):
            raise ValueError
        return choice

    def _is_part(self, name: str) -> bool:
        """Return whether a feed may be one of several: it takes what comes, or names its symbols."""
        count = len(self.symbols(name))
        if name == "stream":
            return bool(self.stream)
        return name == "push" or (
            name in ("simulator", *VENUES) and count > 0 and (count <= MAX_VENUE_SYMBOLS)
        )

    @property
    def feeds(self) -> dict[str, str]:
        """Each feed's name, and the text behind its colon."""
        if self.startswith("replay:"):
            return {"replay": self.removeprefix("replay:")}
        parts = [part.partition(":") for part in self.split("+")]
        return {name: text for name, _, text in parts}

    @property
    def replay_path(self) -> Path | None:
        """The file to replay, None for the other choices."""
        path = self.feeds.get("replay")
        return Path(path) if path else None

    @property
    def simulated(self) -> frozenset[str]:
        """The only symbols that the simulator moves; none if it may move all."""
        return frozenset(self.symbols("simulator"))

    @property
    def venues(self) -> list[str]:
        """The names of the live public feeds."""
        return [name for name in self.feeds if name in VENUES]

    @property
    def takes_prices(self) -> bool:
        """Return whether publishers may send prices."""
        return "push" in self.feeds

    @property
    def stream(self) -> str:
        """The key of the Redis Stream to read, empty for none."""
        return self.feeds.get("stream", "")

    def symbols(self, feed: str) -> list[str]:
        """Return the symbols that stand behind a feed's colon."""
        names = NameList.parse(self.feeds.get(feed, ""))
        return list(dict.fromkeys(normalize_symbol(name) for name in names))


class Share(float):
    """A part of a whole: `10%`, `10` or `0.1`; zero is `off`. From 1 on it is a percentage."""

    @classmethod
    def parse(cls, text: str) -> "Share":
        """Errors: ValueError."""
        if text.lower() == "off":
            return cls(0)
        number, percent, rest = text.partition("%")
        share = float(number) / (100 if percent or float(number) >= 1 else 1)
        if rest or not 0 <= share <= 1:
            raise ValueError
        return cls(share)


_UNITS = {"": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30}


class ByteCount(int):
    """A number of bytes, written `64MiB`, `512KiB`, `1GiB` or as a plain number."""

    @classmethod
    def parse(cls, text: str) -> "ByteCount":
        """Errors: ValueError."""
        number = text.rstrip("KMGiBkmgb ")
        unit = _UNITS.get(text[len(number) :].strip().lower())
        if unit is None or not number.isascii() or not number.isdigit():
            raise ValueError
        return cls(int(number) * unit)


Port = Annotated[int, Meta(ge=0, le=65535, description="a port from 0 (any free one) to 65535")]
Count = Annotated[int, Meta(ge=1, description="a whole number above zero")]
Percent = Annotated[float, Meta(gt=0, le=100, description="a percentage above 0, to 100")]
Text = Annotated[str, Meta(description="text")]
Names = Annotated[NameList, Meta(description="names separated by commas")]
Seconds = Annotated[
    Duration,
    Meta(description="a duration above zero, up to 10000d: 250ms, 4s, 30m, 1h or plain seconds"),
]
Session = Annotated[Calendar, Meta(description=ALLOWED)]
Switch = Annotated[bool, Meta(description="0 or 1")]
DelayText = Annotated[
    Delay, Meta(description="a duration from zero to 10000d: 0, 250ms, 2s, 1m or plain seconds")
]
