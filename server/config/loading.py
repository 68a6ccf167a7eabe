"""Reads the settings: environment variables, also from a `.env` file, checked once at the start."""

import re
from collections.abc import Mapping
from typing import Any, Literal, get_origin
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from server.config.environment import BadSetting, environment
from server.config.redaction import HIDDEN, redact
from server.config.settings import Settings, allowed
from server.sessions.calendar import BadSession

_PASSWORD = re.compile(r"(//[^/@:]*:)(?:.*(?=@)|(?!\d+(?:[/?#]|$))[^@]*$)")
"""A password in a URL. It ends at the last `@`, because an `@` in it may be unescaped. Without an `@`,
it is everything that is not a port.
"""


def load_settings(given: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of the variables `given`, by default the process's own and those of `.env`.

    An empty variable counts as not set. Errors: BadSetting.
    """
    variables = environment() if given is None else given
    values = {}
    for field in msgspec.structs.fields(Settings):
        variable = field.name.upper()
        if text := variables.get(variable):
            values[field.name] = _convert(variable, text, field.type)
    settings = Settings(**values)
    _check_together(settings)
    return settings


def secrets_in(settings: Settings) -> list[str]:
    """Return the values that no output may show: keys, tokens, and passwords as URLs hold them."""
    found = [settings.jwt_secret, settings.quotestream_token, settings.alpaca_secret_key]
    for address in (settings.database_url, settings.redis_url):
        url = urlsplit(address)
        given = parse_qs(url.query)
        passwords = [url.password or "", *given.get("password", []), *given.get("ssl_password", [])]
        found += [*passwords, *(unquote(each) for each in passwords)]
    return [each for each in found if each]


def _check_together(settings: Settings) -> None:
    if settings.feed == "bus" and not settings.redis_url:
        raise BadSetting("FEED='bus' is not allowed without REDIS_URL: prices come through Redis")
    if settings.feed.stream and not settings.redis_url:
        raise BadSetting(
            f"FEED={str(settings.feed)!r} is not allowed without REDIS_URL: the stream is in Redis"
        )
    if "alpaca" in settings.feed.venues and not (
        settings.alpaca_key_id and settings.alpaca_secret_key
    ):
        raise BadSetting(
            f"FEED={str(settings.feed)!r} is not allowed without ALPACA_KEY_ID and ALPACA_SECRET_KEY"
        )
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


def _convert(variable: str, text: str, expected: Any) -> Any:
    written = text.lower() if get_origin(expected.__origin__) is Literal else text
    try:
        return msgspec.convert(written, expected, strict=False, dec_hook=_parse)
    except (msgspec.ValidationError, ValueError) as error:
        shown = redact(_PASSWORD.sub(rf"\1{HIDDEN}", text))
        reason = error.__cause__ if isinstance(error.__cause__, BadSession) else allowed(expected)
        raise BadSetting(f"{variable}={shown!r} is not allowed: {reason}") from None


def _parse(expected: Any, text: str) -> Any:
    return expected.parse(text)
