"""Checks values from outside and turns them into records.

Any program may have written a value in a database, a cache, a message or a file. A record's type
(`Snapshot`, `Move`) carries bounds for its fields; this module applies them, and the rules that a type
cannot state. A value that breaks a rule is a BadRecord. The reader leaves it out, reports it, and
continues with the other values.
"""

import re
from collections.abc import Sequence
from typing import Generic, Literal, TypeVar

import msgspec

from server.quotes.instrument import MAX_DECIMALS, at_tick, decimals_of, is_symbol, normalize_symbol
from server.quotes.snapshot import Snapshot

MAX_RECORD_BYTES = 16 * 1024
"""Bytes of one record as JSON: ten times the longest name and symbol with all characters escaped."""

MAX_PROBLEM_LENGTH = 200
"""Characters of a problem's description, which is a part of one log line."""

UNSIGNED_FIELDS = ("last_quote", "previous_close", "open", "high", "low", "bid", "ask")
"""Prices of a snapshot that are negative only if the type of the instrument allows it."""

_COLUMN = re.compile(r"\$\[([0-9]+)\]")
"""The number of a column in msgspec's messages."""

T = TypeVar("T")
S = TypeVar("S", bound=Snapshot)


class BadRecord(Exception):
    """A value is not a record. The message describes the problem in one line."""


class _Row(Snapshot, frozen=True, gc=False, array_like=True):
    """A snapshot as a row. To convert a tuple takes half as long as to convert a mapping."""


class Decoder(Generic[T]):
    """Decodes messages of one type. Messages longer than `most` bytes are not decoded."""

    def __init__(
        self, kind: type[T], form: Literal["json", "msgpack"], most: int = MAX_RECORD_BYTES
    ) -> None:
        self._decoder = (
            msgspec.json.Decoder(kind) if form == "json" else msgspec.msgpack.Decoder(kind)
        )
        self._most = most

    def decode(self, data: bytes | str) -> T:
        """Decode one message. Errors: BadRecord."""
        if len(data) > self._most:
            raise BadRecord(f"{len(data)} bytes are more than {self._most}")
        try:
            return self._decoder.decode(data)  # type: ignore[arg-type]  # only JSON comes as text
        except (ValueError, RecursionError) as error:
            # msgspec's own errors are ValueErrors, as is the error for a string that is not UTF-8.
            raise BadRecord(_line(error)) from None


def read_symbol(value: object) -> str:
    """Return `value` if it is a symbol in its only spelling. Errors: BadRecord."""
    if not isinstance(value, str):
        raise BadRecord(f"the symbol is {type(value).__name__}, not text")
    if not is_symbol(value):
        raise BadRecord("not a symbol")
    if normalize_symbol(value) != value:
        raise BadRecord(f"a symbol is written in upper case: {normalize_symbol(value)}")
    return value


def read_row(row: Sequence[object]) -> Snapshot:
    """Return the snapshot whose fields are `row`, in the same order. Errors: BadRecord."""
    try:
        checked = msgspec.convert(row, _Row)
    except (ValueError, RecursionError) as error:
        raise BadRecord(_COLUMN.sub(_field_of, _line(error))) from None
    read_symbol(checked.symbol)
    snapshot = _possible(Snapshot(*msgspec.structs.astuple(checked)))
    if isinstance(snapshot.volume, float):
        # Postgres has all volumes as floats.
        volume = at_tick(snapshot.volume, snapshot.size_decimals)
        snapshot = msgspec.structs.replace(snapshot, volume=volume)
    return _at_tick(snapshot)


def _at_tick(row: S) -> S:
    """Return `row` without the noise of floats, and with as many decimals as its prices have. If it has
    a last price but no base price, the last price becomes it.

    Another service may write 0.00001234 without a word about decimals: rounded to cents it would be 0.
    """
    base_price = row.last_quote or None if row.base_price is None else row.base_price
    if base_price is None:
        return row
    decimals = decimals_of(base_price, decimals_of(row.last_quote, row.price_decimals))
    rounded = round(base_price, decimals)
    if rounded <= 0 < base_price:
        raise BadRecord(f"the base price is below 10^-{MAX_DECIMALS}")
    last_quote = round(row.last_quote, decimals)
    if (last_quote, rounded, decimals) == (row.last_quote, row.base_price, row.price_decimals):
        return row
    return msgspec.structs.replace(
        row, last_quote=last_quote, base_price=rounded, price_decimals=decimals
    )


def filed_under(symbol: str, snapshot: S) -> S:
    """Return `snapshot` at its tick if `symbol`, its key in a store, is its own. Errors: BadRecord."""
    if read_symbol(snapshot.symbol) != symbol:
        raise BadRecord(f"it is of another symbol, {snapshot.symbol}")
    return _at_tick(_possible(snapshot))


def _possible(snapshot: S) -> S:
    """Return `snapshot` if its type of instrument can have these values. Errors: BadRecord."""
    if snapshot.volume % 1 and not snapshot.size_decimals:
        raise BadRecord("`$.volume` is a fraction, but the instrument has no `size_decimals`")
    if not snapshot.signed:
        if snapshot.base_price is not None and snapshot.base_price <= 0:
            raise BadRecord("`$.base_price` is not above zero, as a price of this category is")
        for field in UNSIGNED_FIELDS:
            if (getattr(snapshot, field) or 0) < 0:
                raise BadRecord(f"`$.{field}` is negative, as no price of this category is")
    return snapshot


def _field_of(column: re.Match[str]) -> str:
    return f"$.{Snapshot.__struct_fields__[int(column[1])]}"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:MAX_PROBLEM_LENGTH]
