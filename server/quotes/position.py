"""A client's position, by which its next connection resumes: `<epoch>:<SYM>=<version>,…`."""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from server.quotes.instrument import normalize_symbol

_HELD = re.compile(r"(.+)=([0-9]{1,18})", re.DOTALL)


class Position(NamedTuple):
    """The last versions that a client got, by symbol, all of one epoch."""

    epoch: str
    versions: Mapping[str, int]


def parse_position(text: str) -> Position:
    """Parse the parameter `resume`. Errors: ValueError."""
    epoch, colon, rest = text.partition(":")
    if not (epoch and colon):
        raise ValueError("does not start with an epoch and a colon")
    versions = {}
    for part in rest.split(","):
        if part.strip():
            held = _HELD.fullmatch(part)
            if held is None:
                raise ValueError(f"{part[:60]!r} is not SYMBOL=version")
            versions[normalize_symbol(held[1])] = int(held[2])
    return Position(epoch, versions)


def format_position(epoch: str, versions: Iterable[tuple[str, int]]) -> str:
    """Format a position for `parse_position`. Symbols with a comma cannot be named and are left out."""
    held = ",".join(f"{symbol}={version}" for symbol, version in versions if "," not in symbol)
    return f"{epoch}:{held}"
