"""Configuration: environment variables, also from a `.env` file, checked once at the start."""

import os
import re
from collections.abc import Mapping, Sequence
from io import StringIO
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec
from dotenv import dotenv_values
from dotenv.parser import parse_stream
from msgspec import Meta

from server.config.redaction import HIDDEN, redact
from server.quotes.duration import parse_duration

_PASSWORD = re.compile(r"(//[^/@:]*:)(?:.*(?=@)|(?!\d+(?:[/?#]|$))[^@]*$)")
"""A password in a URL. It ends at the last `@`, because an `@` in it may be unescaped. Without an `@`,
it is everything that is not a port.
"""


class BadSetting(Exception):
    """A variable's value is not allowed; the message is one line for the operator."""


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


class Origins(NameList):
    """Comma-separated origins as browsers send them (RFC 6454 §6.2)."""

    @classmethod
    def parse(cls, text: str) -> "Origins":
        """Errors: ValueError for a text that no browser sends: it would allow no page."""
        origins = cls(name.lower() for name in NameList.parse(text))
        for origin in origins:
            url = urlsplit(origin)
            if origin != "null" and not (url.netloc and origin == f"{url.scheme}://{url.netloc}"):
                raise ValueError
        return origins


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
        one.port  # noqa: B018 (only its error matters)
        (one.hostname or "").encode("idna")
    if url.scheme not in schemes or not (url.netloc or url.path):
        raise ValueError
    return text


class FeedChoice(str):
    """Where prices come from: `simulator`, `replay:PATH`, or `bus` for other instances."""

    @classmethod
    def parse(cls, text: str) -> "FeedChoice":
        """Errors: ValueError."""
        kind, _, path = text.partition(":")
        if text not in ("simulator", "bus") and not (kind == "replay" and path):
            raise ValueError
        return cls(text)

    @property
    def replay_path(self) -> Path | None:
        """The file to replay, None for the other choices."""
        _, _, path = self.partition(":")
        return Path(path) if path else None


Port = Annotated[int, Meta(ge=0, le=65535, description="a port from 0 (any free one) to 65535")]
Count = Annotated[int, Meta(ge=1, description="a whole number above zero")]
Percent = Annotated[float, Meta(gt=0, le=100, description="a percentage above 0, to 100")]
Names = Annotated[NameList, Meta(description="names separated by commas")]
Seconds = Annotated[
    Duration,
    Meta(description="a duration above zero, up to 10000d: 250ms, 4s, 30m, 1h or plain seconds"),
]
Text = Annotated[str, Meta(description="text")]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Every setting with its type and default. Its variable is the name in capitals."""

    ws_host: Text = "127.0.0.1"
    ws_port: Port = 8080
    http_host: Text = "127.0.0.1"
    http_port: Port = 8081
    http_max_connections: Count = 200
    ops_host: Text = "127.0.0.1"
    ops_port: Annotated[
        Annotated[int, Meta(ge=0, le=65535)] | None,
        Meta(description="a port from 0 to 65535; empty: operators' pages are on HTTP_PORT"),
    ] = None
    jwt_secret: Annotated[str, Meta(description="the key of HS256, HS384 or HS512")] = ""
    jwt_public_key: Annotated[str, Meta(description="a public key in PEM, or its file")] = ""
    jwt_algorithms: Names = NameList()
    jwt_audience: Text = ""
    jwt_issuer: Text = ""
    jwt_leeway: Annotated[
        Delay, Meta(description="a duration from zero to 10000d: 0, 250ms, 2s, 1m or plain seconds")
    ] = Delay(5)
    ws_max_connections: Count = 10_000
    ws_max_connections_per_user: Count = 100
    ws_max_symbols: Count = 500
    ws_command_rate: Annotated[int, Meta(ge=1, description="commands a second, 1 or more")] = 50
    ws_handshake_rate: Count = 3000
    user_command_rate: Annotated[
        int, Meta(ge=1, description="commands a second of a user in all, 1 or more")
    ] = 4000
    user_lookup_rate: Annotated[
        int, Meta(ge=1, description="symbols a second looked up for a user, 1 or more")
    ] = 5000
    address_failure_rate: Annotated[
        int, Meta(ge=1, description="failed handshakes and requests a second, 1 or more")
    ] = 100
    address_request_rate: Annotated[
        int, Meta(ge=1, description="HTTP requests a second without a token, 1 or more")
    ] = 100
    trusted_proxies: Annotated[
        Networks, Meta(description="networks such as 10.0.0.0/8 with commas; empty: none")
    ] = Networks()
    ws_ping_interval: Seconds = Duration(20)
    ws_idle_timeout: Seconds = Duration(30 * 60)
    ws_health_check_interval: Seconds = Duration(30)
    ws_stall_timeout: Seconds = Duration(2)
    ws_circuit_breaker_threshold: Count = 5
    ws_circuit_breaker_recovery: Seconds = Duration(30)
    drain_delay: Annotated[
        Delay, Meta(description="a duration from zero to 10000d: 0, 250ms, 2s, 1m or plain seconds")
    ] = Delay(2)
    ws_compression: Annotated[Literal["off", "shared"], Meta(description="off or shared")] = "off"
    ws_allowed_origins: Annotated[
        Origins, Meta(description="origins such as https://example.com with commas; empty: any")
    ] = Origins()
    database_url: Annotated[DatabaseUrl, Meta(description="postgresql://…, else a SQLite file")] = (
        DatabaseUrl()
    )
    database_pool_size: Annotated[int, Meta(ge=2, description="connections, 2 or more")] = 10
    database_pooler: Annotated[
        Literal["", "transaction"],
        Meta(description="transaction, if DATABASE_URL is such a pooler's (PgBouncer); else empty"),
    ] = ""
    database_migrate: Annotated[bool, Meta(description="0 or 1: migrate at the start")] = True
    catalogue: Annotated[
        Literal["shipped", "empty"],
        Meta(description="shipped or empty: what a new SQLite file is filled with"),
    ] = "shipped"
    sqlite_path: Annotated[str, Meta(description="a file; empty: in the user's state folder")] = ""
    redis_url: Annotated[
        RedisUrl, Meta(description="redis://…?db=0, else a cache in the process")
    ] = RedisUrl()
    cache_ttl: Seconds = Duration(300)
    cache_symbols: Count = 20_000
    cache_warm: Annotated[NameList, Meta(description="symbols; empty: those watched last")] = (
        NameList()
    )
    price_write_interval: Seconds = Duration(5)
    feed: Annotated[FeedChoice, Meta(description="simulator, replay:PATH or bus")] = FeedChoice(
        "simulator"
    )
    price_update_interval: Seconds = Duration(4)
    quote_quiet_after: Seconds = Duration(60)
    simulator_seed: Annotated[int | None, Meta(description="a whole number")] = None
    replay_speed: Annotated[float, Meta(ge=0, le=1e6, description="a number from 0 to 1000000")] = (
        1.0
    )
    replay_longest_gap: Seconds = Duration(600)
    bus_lease: Seconds = Duration(3)
    bus_stale_after: Seconds = Duration(3)
    bus_outage: Annotated[
        Literal["stale", "local"], Meta(description="stale or local: without Redis")
    ] = "stale"
    replay_loop: Annotated[bool, Meta(description="0 or 1")] = False
    workers_min: Count = 1
    workers_max: Annotated[int, Meta(ge=0, description="a whole number; 0: one a core")] = 0
    scale_up_connections: Percent = 80.0
    scale_up_cpu: Percent = 80.0
    scale_up_latency: Seconds = Duration(0.1)
    scale_down: Percent = 30.0
    scale_after: Seconds = Duration(10)
    scale_cooldown: Seconds = Duration(30)
    worker_timeout: Seconds = Duration(30)
    worker_drain_rate: Annotated[int, Meta(ge=1, description="clients a second, 1 or more")] = 500
    log_format: Annotated[
        Literal["auto", "console", "json"], Meta(description="auto, console or json")
    ] = "auto"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="debug, info, warning or error"),
    ] = "info"
    quotestream_token: Annotated[str, Meta(description="the token of `quotestream watch`")] = ""

    def __repr__(self) -> str:
        # The values hold secrets.
        return "Settings(…)"


def load_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of `environment`, by default the process's own, completed by `.env`.

    An empty variable counts as not set. Errors: BadSetting.
    """
    variables = _environment() if environment is None else environment
    given = {}
    for field in msgspec.structs.fields(Settings):
        variable = field.name.upper()
        if text := variables.get(variable):
            given[field.name] = _convert(variable, text, field.type)
    settings = Settings(**given)
    _check_together(settings)
    return settings


def secrets_in(settings: Settings) -> list[str]:
    """Return the values that no output may show: keys, tokens, and passwords as URLs hold them."""
    found = [settings.jwt_secret, settings.quotestream_token]
    for address in (settings.database_url, settings.redis_url):
        url = urlsplit(address)
        given = parse_qs(url.query)
        passwords = [url.password or "", *given.get("password", []), *given.get("ssl_password", [])]
        found += [*passwords, *(unquote(each) for each in passwords)]
    return [each for each in found if each]


def _check_together(settings: Settings) -> None:
    if settings.feed == "bus" and not settings.redis_url:
        raise BadSetting("FEED='bus' is not allowed without REDIS_URL: prices come through Redis")
    if 0 < settings.workers_max < settings.workers_min:
        raise BadSetting(
            f"WORKERS_MIN={settings.workers_min} is not allowed: "
            f"WORKERS_MAX={settings.workers_max} is less"
        )
    if settings.scale_down >= min(settings.scale_up_connections, settings.scale_up_cpu):
        raise BadSetting(
            f"SCALE_DOWN={settings.scale_down:g} is not allowed: "
            "it must be below SCALE_UP_CONNECTIONS and SCALE_UP_CPU"
        )
    if settings.bus_outage == "local" and settings.feed != "simulator":
        raise BadSetting(
            "BUS_OUTAGE='local' is not allowed with this FEED: only the simulator goes on alone"
        )


def describe_settings() -> str:
    """Return a line for each variable: its allowed values and its default."""
    lines = []
    for field in msgspec.structs.fields(Settings):
        default = "" if field.default in ("", None, ()) else str(_written(field.default))
        lines.append(
            f"  {field.name.upper():<28} {_allowed(field.type)}; default {default or 'empty'}"
        )
    return "\n".join(lines)


def _environment() -> dict[str, str]:
    return _dot_env() | dict(os.environ)


def _dot_env() -> dict[str, str]:
    """Return the variables of a `.env` file in the working folder. Errors: BadSetting."""
    try:
        text = Path(".env").read_text("utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise BadSetting(f"cannot read .env: {error}") from None
    for binding in parse_stream(StringIO(text)):
        if binding.error:
            raise BadSetting(f".env, line {binding.original.line}: not a line like NAME=value")
    # Without interpolation: `$` and `${…}` may be part of a secret.
    values = dotenv_values(stream=StringIO(text), interpolate=False)
    return {name: value for name, value in values.items() if value}


def _convert(variable: str, text: str, expected: Any) -> Any:
    written = text.lower() if get_origin(expected.__origin__) is Literal else text
    try:
        return msgspec.convert(written, expected, strict=False, dec_hook=_parse)
    except (msgspec.ValidationError, ValueError):
        shown = redact(_PASSWORD.sub(rf"\1{HIDDEN}", text))
        raise BadSetting(f"{variable}={shown!r} is not allowed: {_allowed(expected)}") from None


def _parse(expected: Any, text: str) -> Any:
    return expected.parse(text)


def _allowed(annotated: Any) -> str:
    return str(annotated.__metadata__[0].description)


def _written(value: Any) -> Any:
    if isinstance(value, (Duration, Delay)):
        return f"{value:g}s" if value % 60 else f"{value / 60:g}m"
    return int(value) if isinstance(value, bool) else value
