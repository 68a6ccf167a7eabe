"""The meaning of the settings, for people: the help of `serve`, and hints at a setting's variable."""

from collections.abc import Iterator
from textwrap import fill
from typing import Any, NamedTuple

import msgspec

from server.config.environment import environment, unknown_variables
from server.config.settings import GROUPS, Settings, allowed
from server.config.values import ByteCount, Delay, Duration, Share
from server.sessions.calendar import Calendar

WIDTH = 80
"""Columns of the help."""

HINTS = 3
"""The number of variables that a hint names at most, such as those of `--port`."""

SECRETS = ("JWT_SECRET", "QUOTESTREAM_TOKEN", "ALPACA_SECRET_KEY", "DATABASE_URL", "REDIS_URL")
"""Variables whose values no output repeats."""


class Described(NamedTuple):
    """One setting: its group, its variable, its default as text, what it means, and what it allows."""

    group: str
    variable: str
    default: str
    meaning: str
    allowed: str


def described_settings() -> Iterator[Described]:
    """Describe every setting, in the order of the groups."""
    group = ""
    for field in msgspec.structs.fields(Settings):
        group = GROUPS.get(field.name, group)
        values = allowed(field.type)
        yield Described(
            group,
            field.name.upper(),
            _written(field.default),
            next((each for each in field.type.__metadata__ if isinstance(each, str)), ""),
            "" if values == "text" else values,
        )


def describe_settings() -> str:
    """Return the help: each setting with its default, what it means, and which values it takes."""
    lines = []
    group = ""
    for each in described_settings():
        if each.group != group:
            group = each.group
            lines += ["", f"{group}:"]
        values = f" Value: {each.allowed}." if each.allowed else ""
        indent = " " * 6
        text = fill(
            each.meaning + values,
            WIDTH - 1,
            initial_indent=indent,
            subsequent_indent=indent,
            break_on_hyphens=False,
        )
        lines += [f"  {each.variable}, default {each.default or 'empty'}", text]
    return "\n".join(lines).lstrip("\n")


def hint_at_setting(option: str, value: str = "") -> str:
    """Return a line about an unknown option that names a setting, else an empty text.

    `value` is the argument behind the option. If a setting holds a secret, it is not repeated.
    """
    if not option.startswith("--"):
        return ""
    option, _, given = option.partition("=")
    name = option.removeprefix("--").replace("-", "_").upper()
    variables = [each.variable for each in described_settings()]
    found = [each for each in variables if f"_{name}_" in f"_{each}_"]
    # The exact name comes first.
    found = sorted(found, key=lambda each: each != name)[:HINTS]
    text = given or value
    if not text or text.startswith("-") or any(each in SECRETS for each in found):
        text = "…"
    hint = " or ".join(f"{each}={text}" for each in found)
    return hint and f"{option} is not an option: set the variable {hint}"


def unknown_settings() -> list[str]:
    """Return a line for each variable that looks like a setting, but is none. Errors: BadSetting."""
    known = [each.variable for each in described_settings()]
    return [
        f"{variable} is not a setting and has no effect; the nearest name is {nearest}"
        for variable, nearest in unknown_variables(environment(), known)
    ]


def _written(value: Any) -> str:
    if value in ("", None, ()):
        return ""
    if isinstance(value, Calendar):
        # No other calendar is a default.
        return "always"
    if isinstance(value, Share):
        return f"{value:.0%}" if value else "off"
    if isinstance(value, ByteCount):
        return f"{value / 2**20:g}MiB"
    if isinstance(value, (Duration, Delay)):
        return f"{value:g}s" if value % 60 else f"{value / 60:g}m"
    return f"{int(value) if isinstance(value, bool) else value:{'g' * isinstance(value, float)}}"
