"""The compact forms: the same arrays as JSON text or as MessagePack.

    ["s", epoch, ts, [[symbol, version, mask, value, …], …]]    full quotes
    ["u", ts, [[symbol, version, mask, value, …], …]]           changes
    ["d", [symbol, …], {old: new}]                              taken away; {…} after a rename only

Each bit of `mask` stands for a field of the schema. Each set bit has a value: the field's new one,
never a difference. Messages that are not about quotes are objects, as in JSON Patch.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from server.quotes.messages import Message, encode
from server.quotes.patch import Value
from server.quotes.quote import to_microseconds
from server.quotes.view import FIELDS, Form, QuoteChange, Removal, Shown, View

DERIVED = ("change", "change_percent")
"""Fields that a client computes from `current_price` and `base_price`, unless it selects them."""

SENT = tuple(field for field in FIELDS if field not in ("symbol", *DERIVED))
"""Fields that a client without a selection gets. Each entry has the symbol anyway."""

_pack = msgspec.msgpack.Encoder().encode


class Schema(msgspec.Struct, frozen=True, tag_field="type", tag="schema"):
    """The first message of a connection. A mask's lowest bit stands for the first of `fields`.

    `derived`: the fields that are not sent, because the client can compute them.
    """

    fields: Sequence[str]
    derived: Sequence[str] | UnsetType = UNSET


Entry = Annotated[
    Sequence[str | int | float | Sequence[int] | None],
    msgspec.Meta(
        min_length=3,
        description="Symbol, version (or `[since, version]`), mask, and a value for each set bit",
    ),
]


class FullQuotes(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="s"):
    """Full quotes, which replace all that the client has of these symbols."""

    epoch: str
    ts: int
    quotes: Sequence[Entry]


class QuoteChanges(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="u"):
    """Changes of quotes: new values of the fields whose bit is set."""

    ts: int
    quotes: Sequence[Entry]


class QuotesRemoved(msgspec.Struct, frozen=True, array_like=True, tag="d"):
    """Quotes that are taken away."""

    symbols: Sequence[str]


class QuotesRenamed(msgspec.Struct, frozen=True, array_like=True, tag="d"):
    """Quotes that are taken away, and the new symbols of those that were renamed."""

    symbols: Sequence[str]
    renamed: dict[str, str]


class CompactView(View):
    """A view of one of the compact forms."""

    __slots__ = ("_bits", "_encode", "_sent", "binary", "form")

    def __init__(self, form: Form, fields: tuple[str, ...] | None = None) -> None:
        super().__init__(fields)
        self.form = form
        self.binary = form == "msgpack"
        self._encode: Callable[[Any], bytes] = _pack if self.binary else encode
        self._sent = SENT if fields is None else fields
        self._bits = {field: 1 << place for place, field in enumerate(self._sent)}

    def opening(self) -> bytes:
        return self._encode(Schema(self._sent, DERIVED if self.fields is None else UNSET))

    def encode(self, message: Message) -> bytes:
        """Return the message as an object. A time in it is text, as MessagePack's own type for times
        would differ from the JSON form.
        """
        return self._encode(msgspec.to_builtins(message))

    def full(self, topics: Sequence[Shown]) -> bytes:
        """Return all fields; `ts` is the newest quote's."""
        ts, mask = max(topic.ts for topic in topics), (1 << len(self._sent)) - 1
        entries = []
        for topic in topics:
            values = [getattr(topic.quote, field) for field in self._sent]
            entries.append([topic.symbol, topic.version, mask, *_relative(values, ts)])
        return self._encode(FullQuotes(topics[0].epoch, ts, entries))

    def change(self, change: QuoteChange, since: int) -> bytes:
        fields, values = change.difference.fields, change.difference.values
        places = self.places(fields, self._sent)
        mask = sum([self._bits[fields[i]] for i in places])
        version = change.version if self.fields is None else [since, change.version]
        sent = _relative([values[i] for i in places], change.ts)
        return self._encode(QuoteChanges(change.ts, [[change.symbol, version, mask, *sent]]))

    def removal(self, removal: Removal) -> bytes:
        """Return the symbols. A client can also take away a quote that it does not have."""
        symbols = [topic.symbol for topic in removal.topics]
        if removal.renamed is UNSET:
            return self._encode(QuotesRemoved(symbols))
        return self._encode(QuotesRenamed(symbols, removal.renamed))

    def replacement(self, removal: Removal, new: Shown) -> list[bytes]:
        """Return two messages, in this order."""
        return [self.removal(removal), self.full([new])]


def _relative(values: Iterable[Value], ts: int) -> Iterable[Any]:
    """Return times among `values` as microseconds relative to `ts`."""
    return [to_microseconds(each) - ts if type(each) is datetime else each for each in values]
