"""Reads the timestamps of recorded trades: numbers since the Unix epoch in any unit, or RFC 3339."""

import re
from datetime import datetime
from typing import Literal

from server.quotes.quote import to_microseconds
from server.quotes.snapshot import LATEST_US

Unit = Literal["s", "ms", "us", "ns"]

COLUMNS: dict[str, Unit | None] = {
    "timestamp_ms": "ms",
    "timestamp_us": "us",
    "timestamp_ns": "ns",
    "timestamp_s": "s",
    "timestamp": None,
}
"""The names that the column may have, with their units. A `timestamp` shows its unit by its size."""

FEMTOSECONDS: dict[Unit, int] = {"s": 10**15, "ms": 10**12, "us": 10**9, "ns": 10**6}

PLAUSIBLE_US = (315_532_800_000_000, 4_102_444_800_000_000)
"""From 1980 to 2100. A number is a time of these years in at most one unit."""

_NUMBER = re.compile(r"([0-9]{1,20})(?:\.([0-9]{1,9}))?", re.ASCII)


class BadTimestamp(Exception):
    """A text is not a timestamp. The message quotes it in one line."""


def parse_timestamp(text: str, unit: Unit | None) -> int:
    """Return microseconds since the Unix epoch. Without a `unit`, a number is not a timestamp.

    Errors: BadTimestamp.
    """
    time_us = _rfc3339(text) if "-" in text else _number(text, unit)
    if time_us is None or not 0 <= time_us <= LATEST_US:
        raise BadTimestamp(f"not a timestamp: {text[:60]!r}")
    return time_us


def plausible_unit(text: str) -> Unit | None:
    """Return the unit in which the number `text` is a time in PLAUSIBLE_US, None without one."""
    for unit in FEMTOSECONDS:
        time_us = _number(text, unit)
        if time_us is not None and PLAUSIBLE_US[0] <= time_us < PLAUSIBLE_US[1]:
            return unit
    return None


def is_nonzero_number(text: str) -> bool:
    """Return whether `text` is a number above zero: it has a unit, which a time of RFC 3339 has not."""
    return bool(_NUMBER.fullmatch(text.strip()) and text.strip("0. "))


def _number(text: str, unit: Unit | None) -> int | None:
    """Return whole microseconds, rounded down. A float would not be exact."""
    number = _NUMBER.fullmatch(text.strip())
    if number is None or unit is None:
        return None
    whole, fraction = number[1], number[2] or ""
    scale: int = 10 ** len(fraction)
    return int(whole + fraction) * FEMTOSECONDS[unit] // (10**9 * scale)


def _rfc3339(text: str) -> int | None:
    try:
        moment = datetime.fromisoformat(text.strip().upper())
    except ValueError:
        return None
    # Without an offset (RFC 3339 §5.6 requires one), nobody can tell when that was.
    return to_microseconds(moment) if moment.tzinfo is not None else None
