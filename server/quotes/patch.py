"""JSON Patch (RFC 6902) operations on the document `{"quotes": {symbol: quote}}`.

A quote is flat and its fields are known, so comparing two takes a microsecond or two. The general
`jsonpatch.make_patch` takes a hundred times longer; the tests compare the results with it.
"""

from datetime import datetime

import msgspec

from server.quotes.quote import Quote

MOVING_FIELDS = ("current_price", "change", "change_percent", "last_updated", "volume")
"""Fields that a trade can change. The others are fixed when the instrument is listed."""


class Add(msgspec.Struct, frozen=True, gc=False, tag_field="op", tag="add"):
    """RFC 6902 §4.1. It replaces the quote if the document already has one."""

    path: str
    value: Quote


class Replace(msgspec.Struct, frozen=True, gc=False, tag_field="op", tag="replace"):
    """RFC 6902 §4.3."""

    path: str
    value: float | int | datetime


class Remove(msgspec.Struct, frozen=True, gc=False, tag_field="op", tag="remove"):
    """RFC 6902 §4.2."""

    path: str


Operation = Add | Replace | Remove


def quote_pointer(symbol: str) -> str:
    """Return the JSON Pointer to a symbol's quote, escaped by RFC 6901 §3: `~` first, then `/`."""
    return "/quotes/" + symbol.replace("~", "~0").replace("/", "~1")


def difference(old: Quote, new: Quote, pointer: str) -> list[Replace]:
    """Return the operations that turn `old` into `new`, both at `pointer`; empty if they are equal."""
    return [
        Replace(f"{pointer}/{field}", value)
        for field in MOVING_FIELDS
        if (value := getattr(new, field)) != getattr(old, field)
    ]
