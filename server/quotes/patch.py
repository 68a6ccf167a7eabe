"""The difference of two quotes, and its JSON Patch (RFC 6902) on `{"quotes": {symbol: quote}}`.

A quote is flat and its fields are known, so comparing two takes a microsecond or two. The general
`jsonpatch.make_patch` takes a hundred times longer; the tests compare the results with it.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from itertools import compress
from operator import attrgetter, ne
from typing import Any, NamedTuple

import msgspec

from server.quotes.quote import Quote

Value = float | int | str | datetime | None
"""The value of a quote's field."""


class _Compared(NamedTuple):
    """Fields that are compared together. `values` returns theirs of a quote."""

    fields: tuple[str, ...]
    values: Callable[[Quote], tuple[Any, ...]]


def _compared(*fields: str) -> _Compared:
    return _Compared(fields, attrgetter(*fields))


# Fields that a trade within the day's range can change.
_TRADED = _compared("current_price", "change", "change_percent", "last_updated", "volume")

# Fields that any trade can change.
_RANGED = _compared(*_TRADED.fields, "open", "high", "low")

_MOVING = _compared(*_RANGED.fields, "bid", "ask", "bid_size", "ask_size")

MOVING_FIELDS = _MOVING.fields
"""Fields that an update can change. The others are fixed when the instrument is listed."""


class Add(msgspec.Struct, frozen=True, gc=False, tag_field="op", tag="add"):
    """RFC 6902 §4.1. It replaces the quote if the document already has one. `value` has only the fields
    that the client selected.
    """

    path: str
    value: Quote | dict[str, Value]


class Replace(msgspec.Struct, frozen=True, gc=False, tag_field="op", tag="replace"):
    """RFC 6902 §4.3."""

    path: str
    value: Value


class Remove(msgspec.Struct, frozen=True, gc=False, tag_field="op", tag="remove"):
    """RFC 6902 §4.2."""

    path: str


Operation = Add | Replace | Remove


class Difference(msgspec.Struct, frozen=True, gc=False):
    """The fields in which one quote differs from another, and the newer quote's values of them."""

    fields: tuple[str, ...]
    values: tuple[Value, ...]


def quote_pointer(symbol: str) -> str:
    """Return the JSON Pointer to a symbol's quote, escaped by RFC 6901 §3: `~` first, then `/`."""
    return "/quotes/" + symbol.replace("~", "~0").replace("/", "~1")


def difference(old: Quote, new: Quote, *, traded: bool = False) -> Difference:
    """Return the difference between `old` and `new`; without any field if they are equal.

    Arguments:
        traded: `new` is the quote after a trade, so that only some fields need a comparison.
    """
    if not traded:
        compared = _MOVING
    elif old.high == new.high and old.low == new.low:
        compared = _TRADED
    else:
        compared = _RANGED
    before, after = compared.values(old), compared.values(new)
    changed = list(map(ne, before, after))
    # The common case: so all updates share the names.
    if all(changed):
        return Difference(compared.fields, after)
    return Difference(tuple(compress(compared.fields, changed)), tuple(compress(after, changed)))


def replacements(pointer: str, fields: Iterable[str], values: Iterable[Value]) -> list[Replace]:
    """Return the operations that set the `fields` of the quote at `pointer`."""
    start = pointer + "/"
    return [Replace(start + field, value) for field, value in zip(fields, values, strict=True)]
