"""Reads durations as people write them: `250ms`, `4s`, `30m`, `1h`, `7d` or plain seconds."""

import re
from math import isfinite

SHOWN = 60
"""Characters of a wrong duration that the error message repeats."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "": 1.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d|)")


def parse_duration(text: str) -> float:
    """Return the seconds, zero or more. Errors: ValueError."""
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(f"{text[:SHOWN]!r} is not a duration")
    return float(match[1]) * _UNITS[match[2]]


def seconds_of(duration: float | str) -> float:
    """Return the seconds of a number, or of a text as people write it. Errors: ValueError."""
    if isinstance(duration, str):
        return parse_duration(duration)
    # MessagePack has NaN and infinity, JSON does not.
    if not isfinite(duration) or duration < 0:
        raise ValueError(f"{duration:g} is not a duration")
    return float(duration)
