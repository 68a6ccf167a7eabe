"""The environment's variables, with those of `.env`, and the ones among them that look misspelled."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from io import StringIO
from pathlib import Path
from typing import NamedTuple

from dotenv import dotenv_values
from dotenv.parser import parse_stream

OWN_PREFIXES = (
    *("WS_", "OPS_", "JWT_", "DATABASE_", "REDIS_", "SQLITE_", "REPLAY_", "SIMULATOR_", "BUS_"),
    *("FEED_", "QUOTESTREAM_"),
)
"""Beginnings of names that other programs hardly use. Other programs also use `HTTP_…`, `LOG_…` and the
like. Such a name is reported only if it is close to a setting's.
"""

CLOSE = 0.82
"""Similarity (of difflib) from which a name counts as misspelled. HTTP_PROT has 0.89 of
HTTP_PORT, the foreign WORKER_ID 0.8 of WORKERS_MIN.
"""

# Of curl and others, ASP.NET, and SQLite's shell. Kubernetes and Docker describe other services:
# REDIS_SERVICE_HOST, REDIS_PORT_6379_TCP_ADDR, and REDIS_PORT=tcp://10.0.0.7:6379.
_FOREIGN = re.compile(
    r"(HTTPS?|FTP|NO|ALL|WSS?|SOCKS)_PROXY|HTTPS_.*|SQLITE_(HISTORY|TMPDIR)"
    r"|.*_SERVICE_(HOST|PORT)(_.*)?|.*_PORT_\d+_(TCP|UDP)(_.*)?"
)

_SERVICE_ADDRESS = re.compile(r"(tcp|udp)://")


class BadSetting(Exception):
    """A variable's value is not allowed; the message is one line for the operator."""


class Unknown(NamedTuple):
    """A variable that no setting has, and the setting with the most similar name."""

    variable: str
    nearest: str


def environment() -> dict[str, str]:
    """Return the process's variables, completed by those of `.env`. Errors: BadSetting."""
    return _dot_env() | dict(os.environ)


def unknown_variables(variables: Mapping[str, str], settings: Iterable[str]) -> list[Unknown]:
    """Return the variables that seem to be meant for the server, but are none of `settings`."""
    known = list(settings)
    return [
        Unknown(name, nearest)
        for name, value in sorted(variables.items())
        if value and name not in known and not _is_foreign(name.upper(), value)
        if (nearest := _nearest(name.upper(), known))
    ]


def _nearest(name: str, known: Sequence[str]) -> str | None:
    """Return the setting that is probably meant, None if the name may be another program's."""
    # With a word before it, as in APP_LOG_LEVEL, it is the variable of another program.
    if name.endswith(tuple(f"_{each}" for each in known)):
        return None
    if close := get_close_matches(name, known, 1, CLOSE):
        return close[0]
    start = next((each for each in OWN_PREFIXES if name.startswith(each)), None)
    ours = [each for each in known if start and f"{each}_".startswith(start)]
    return get_close_matches(name, ours or known, 1, 0)[0] if start else None


def _is_foreign(name: str, value: str) -> bool:
    link = name.endswith("_PORT") and _SERVICE_ADDRESS.match(value)
    return bool(link or _FOREIGN.fullmatch(name))


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
