"""JSON Patch (RFC 6902) operations on the document `{"quotes": {symbol: quote}}`.

A quote is flat and its fields are known, so comparing two takes a microsecond or two. The general
`jsonpatch.make_patch` takes a hundred times longer; the tests compare the results with it.
"""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from server.quotes.quote import Quote

TRADED_FIELDS = ("current_price", "change", "change_percent", "last_updated", "volume")
"""Fields that a trade within the day's range can change."""

RANGED_FIELDS = (*TRADED_FIELDS, "open", "high", "low")
"""Fields that any trade can change."""

BOOK_FIELDS = ("bid", "ask", "bid_size", "ask_size")

MOVING_FIELDS = (*RANGED_FIELDS, "base_price", "previous_close", *BOOK_FIELDS)
"""Fields that an update can change. The others are fixed when the instrument is listed."""


class Add(msgspec.Struct, frozen=True, gc=False, tag_field="op", tag="add"):
    """RFC 6902 §4.1. It replaces the quote if the document already has one."""

    path: str
    value: Quote


class Replace(msgspec.Struct, frozen=True, gc=False, tag_field="op", tag="replace"):
    """RFC 6902 §4.3."""

    path: str
    value: float | int | datetime | None


class Remove(msgspec.Struct, frozen=True, gc=False, tag_field="op", tag="remove"):
    """RFC 6902 §4.2."""

    path: str


Operation = Add | Replace | Remove


def quote_pointer(symbol: str) -> str:
    """Return the JSON Pointer to a symbol's quote, escaped by RFC 6901 §3: `~` first, then `/`."""
    return "/quotes/" + symbol.replace("~", "~0").replace("/", "~1")


def difference(old: Quote, new: Quote, pointer: str, *, traded: bool = False) -> list[Replace]:
    """Return the operations that turn `old` into `new`, both at `pointer`; empty if they are equal.

    Arguments:
        traded: `new` is the quote after a trade, so that only some fields need a comparison.
    """
    if not traded:
        fields: Sequence[str] = MOVING_FIELDS
    elif old.high == new.high and old.low == new.low:
        fields = TRADED_FIELDS
    else:
        fields = RANGED_FIELDS
    return [
        Replace(f"{pointer}/{field}", value)
        for field in fields
        if (value := getattr(new, field)) != getattr(old, field)
    ]
