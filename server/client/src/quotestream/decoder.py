"""Reads a server's messages of all forms: JSON Patch, compact, and compact in MessagePack.

It does no I/O. A compact message becomes the `quotes_patch` that says the same. So one document and
one listener serve all forms.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from quotestream.document import Document
from quotestream.errors import BadMessage
from server.quotes.patch import quote_pointer
from server.quotes.quote import PERCENT_DECIMALS, from_microseconds, shown_decimals
from server.quotes.view import Form

PREFIX = "quotestream.v1."
"""The beginning of each form's subprotocol."""

TIMES = {"last_updated"}
"""Fields that compact messages send as microseconds relative to `ts`."""

MAX_VALUES = 500_000
"""Values of one message's full quotes: ten times those of a server's longest. A schema of many fields
and rows of few bytes would fill the memory otherwise.
"""

Message = dict[str, Any]

UNREADABLE = (
    *(ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError),
    msgspec.MsgspecError,
)
"""The errors of reading a message that has other types, sizes or depths than the protocol's."""


def not_valid(error: Exception) -> BadMessage:
    """Return the error for a message that was read with one of UNREADABLE."""
    return BadMessage(f"the server sent a message that is not valid: {error!r}")


def subprotocols(form: Form | None) -> list[str]:
    """Return the subprotocols to offer, the best one first. None chooses the compact form.

    A server that does not have the form picks JSON, or none.
    """
    return [PREFIX + each for each in dict.fromkeys((form or "compact", "json"))]


class Schema(NamedTuple):
    """The fields of a connection's rows in the order of the mask's bits, and the derived fields."""

    fields: Sequence[str]
    derived: Sequence[str]

    def read(self, mask: int, values: Sequence[Any], ts: int) -> dict[str, Any]:
        """Return the values of a row by field, as JSON has them. A later version of the server may
        send more values than bits. Errors: ValueError for fewer, and for a row before the schema.
        """
        if not self.fields:
            raise ValueError("a row before the schema")
        present = [field for bit, field in enumerate(self.fields) if mask >> bit & 1]
        row = dict(zip(present, values[: len(present)], strict=True))
        for field in TIMES & row.keys():
            if row[field] is not None:
                row[field] = msgspec.to_builtins(from_microseconds(ts + row[field]))
        return row


class Decoder:
    """Reads one connection's messages and writes its commands.

    Arguments:
        document: the quotes that the messages change. Its owner applies each message before it asks
            for the next.
        subprotocol: the server's choice; None for JSON.
        selected: the client asked for certain fields only.
    """

    def __init__(self, document: Document, subprotocol: str | None, *, selected: bool) -> None:
        self._document = document
        self._binary = subprotocol == f"{PREFIX}msgpack"
        self._selected = selected
        self._schema = Schema((), ())
        self._epoch = ""

    def command(self, **fields: Any) -> str | bytes:
        """Return a command in the connection's form."""
        if self._binary:
            return msgspec.msgpack.encode(fields)
        return msgspec.json.encode(fields).decode()

    def messages(self, data: str | bytes) -> Iterator[Message]:
        """Yield what `data` says as messages of the JSON form. Errors: BadMessage."""
        try:
            # Not json.loads, which takes NaN for JSON.
            value = (msgspec.json if isinstance(data, str) else msgspec.msgpack).decode(data)
            if isinstance(value, list):
                yield from self._compact(*value)
            elif value["type"] == "schema":
                self._schema = Schema(value["fields"], value.get("derived", ()))
            else:
                yield value
        except UNREADABLE as error:
            raise not_valid(error) from None

    def _compact(self, kind: str, *parts: Any) -> Iterator[Message]:
        """Yield what an array says. A later version of the server may send other kinds of arrays, and
        more elements.
        """
        if kind == "s":
            yield self._full(*parts[:3])
        elif kind == "u":
            for row in parts[1]:
                yield self._change(parts[0], *row)
        elif kind == "d":
            yield self._removal(*parts[:2])

    def _full(self, epoch: str, ts: int, rows: list[list[Any]]) -> Message:
        if len(rows) * len(self._schema.fields) > MAX_VALUES:
            raise ValueError(f"{len(rows)} quotes of {len(self._schema.fields)} fields")
        operations: list[Message] = []
        for symbol, _, mask, *values in rows:
            quote = {} if self._selected else {"symbol": symbol}
            quote |= dict.fromkeys(self._schema.fields) | self._schema.read(mask, values, ts)
            quote |= derive(quote, self._schema.derived)
            operations.append({"op": "add", "path": quote_pointer(symbol), "value": quote})
        versions = {row[0]: row[1] for row in rows}
        return _patch(ts, versions, operations) | {"epoch": epoch}

    def _change(
        self, ts: int, symbol: str, version: int | list[int], mask: int, *values: Any
    ) -> Message:
        changed = self._schema.read(mask, values, ts)
        held = self._document.quotes.get(symbol, {})
        changed |= {
            field: value
            for field, value in derive(held | changed, self._schema.derived).items()
            if value != held.get(field)
        }
        pointer = quote_pointer(symbol)
        operations = [
            {"op": "replace", "path": f"{pointer}/{field}", "value": value}
            for field, value in changed.items()
        ]
        if isinstance(version, int):
            return _patch(ts, {symbol: version}, operations)
        since, version = version
        return _patch(ts, {symbol: version}, operations) | {"since": {symbol: since}}

    def _removal(self, symbols: list[str], renamed: dict[str, str] | None = None) -> Message:
        versions = {symbol: self._document.versions.get(symbol, 1) for symbol in symbols}
        operations = [{"op": "remove", "path": quote_pointer(symbol)} for symbol in symbols]
        return _patch(0, versions, operations) | ({"renamed": renamed} if renamed else {})


def derive(quote: dict[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    """Return the derived `fields` of a quote, computed from its two prices. Others are left out."""
    if not fields:
        return {}
    price, base = quote.get("current_price"), quote.get("base_price")
    change = percent = None
    if price is not None and base is not None:
        change = round(price - base, max(shown_decimals(price), shown_decimals(base)))
        # The server's own formula, bit by bit: adding zero turns -0.0 into 0.0.
        percent = round((price - base) * 100 / base, PERCENT_DECIMALS) + 0.0 if base > 0 else None
    known = {"change": change, "change_percent": percent}
    return {field: known[field] for field in fields if field in known}


def _patch(ts: int, versions: dict[str, int], operations: list[Message]) -> Message:
    return {"type": "quotes_patch", "ts": ts, "versions": versions, "operations": operations}
