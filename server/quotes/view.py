"""Views: the form and the fields in which a client gets quotes. Pure values in, payloads out.

A form is JSON Patch here, or one of the two in compact.py. The fields are all, or a selection by the
parameter `fields`. Outboxes with the same view share each encoded update, so a view is compared by
identity.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Literal, NamedTuple, Protocol, get_args

import msgspec
from msgspec import UNSET, UnsetType

from server.quotes.messages import Message, QuotesPatch, encode
from server.quotes.patch import MOVING_FIELDS, Add, Difference, Remove, Value, replacements
from server.quotes.quote import Quote

Form = Literal["json", "compact", "msgpack"]

FORMS: tuple[Form, ...] = get_args(Form)

FIELDS = (
    "current_price",
    "volume",
    *(field for field in MOVING_FIELDS if field not in ("current_price", "volume")),
    *(field for field in Quote.__struct_fields__ if field not in MOVING_FIELDS),
)
"""All fields of a quote. A selection has this order: the fields that change most often come first."""


class Shown(Protocol):
    """A quote with the values that messages about it need."""

    pointer: str
    quote: Quote
    version: int
    ts: int
    epoch: str

    @property
    def symbol(self) -> str: ...


class QuoteChange(msgspec.Struct, frozen=True, gc=False):
    """The change of a quote that made `version`. `ts` and `pointer` are as in messages."""

    symbol: str
    pointer: str
    version: int
    ts: int
    difference: Difference


class Removal(NamedTuple):
    """Quotes that are taken away at `ts`.

    `given`: the client may not have them, so JSON Patch has to give them first. `successor`: the quote
    in place of the only one, which was renamed.
    """

    topics: Sequence[Shown]
    ts: int
    given: bool = False
    successor: Shown | None = None

    @property
    def renamed(self) -> dict[str, str] | UnsetType:
        """The new symbol by the old one."""
        return {self.topics[0].symbol: self.successor.symbol} if self.successor else UNSET


class View(ABC):
    """The interface of the views. `fields` is None without a selection.

    With a selection, a view sends nothing when none of its fields changed. Each change then tells
    `since`, the version of the update before it in this selection.
    """

    __slots__ = ("_places", "fields")

    form: Form
    binary = False
    """Whether the messages are binary ones."""

    def __init__(self, fields: tuple[str, ...] | None = None) -> None:
        self.fields = fields
        self._places: dict[tuple[str, ...], tuple[int, ...]] = {}

    def opening(self) -> bytes | None:
        """Return the message that a connection begins with, if there is one."""
        return None

    @abstractmethod
    def encode(self, message: Message) -> bytes:
        """Return a message that is not about quotes."""

    @abstractmethod
    def full(self, topics: Sequence[Shown]) -> bytes:
        """Return one message with the full quotes of one or more `topics`."""

    @abstractmethod
    def change(self, change: QuoteChange, since: int) -> bytes:
        """Return the message of a change that this view `shows`."""

    @abstractmethod
    def removal(self, removal: Removal) -> bytes:
        """Return the message that takes quotes away."""

    @abstractmethod
    def replacement(self, removal: Removal, new: Shown) -> list[bytes]:
        """Return the messages that take a renamed quote away and give the `new` one."""

    def shows(self, fields: Iterable[str]) -> bool:
        """Return whether a client of this view has to hear of a change of `fields`."""
        return self.fields is None or not set(self.fields).isdisjoint(fields)

    def places(self, fields: tuple[str, ...], sent: Sequence[str]) -> tuple[int, ...]:
        """Return where in `fields` each of the `sent` fields is that changed, in the order of `sent`.

        The result is kept by `fields`, as a view always gives the same `sent`.
        """
        places = self._places.get(fields)
        if places is None:
            places = tuple(fields.index(field) for field in sent if field in fields)
            self._places[fields] = places
        return places


class JsonView(View):
    """JSON Patch: each message is an object."""

    __slots__ = ()

    form = "json"

    def encode(self, message: Message) -> bytes:
        return encode(message)

    def full(self, topics: Sequence[Shown]) -> bytes:
        """Return the operations `add`; `ts` is the newest quote's."""
        return encode(self._quotes(topics))

    def change(self, change: QuoteChange, since: int) -> bytes:
        """Return the operations `replace`."""
        fields, values = change.difference.fields, change.difference.values
        versions = {change.symbol: change.version}
        if self.fields is None:
            operations = replacements(change.pointer, fields, values)
            return encode(QuotesPatch(change.ts, versions, operations))
        places = self.places(fields, self.fields)
        selected, values = [fields[i] for i in places], tuple(values[i] for i in places)
        operations = replacements(change.pointer, selected, values)
        return encode(QuotesPatch(change.ts, versions, operations, since={change.symbol: since}))

    def removal(self, removal: Removal) -> bytes:
        """Return the operations `remove`."""
        return encode(self._removal(removal))

    def replacement(self, removal: Removal, new: Shown) -> list[bytes]:
        """Return one message, which does both."""
        gone, quotes = self._removal(removal), self._quotes([new])
        message = QuotesPatch(
            quotes.ts,
            gone.versions | quotes.versions,
            [*gone.operations, *quotes.operations],
            quotes.epoch,
            gone.renamed,
        )
        return [encode(message)]

    def _quotes(self, topics: Sequence[Shown]) -> QuotesPatch:
        return QuotesPatch(
            max(topic.ts for topic in topics),
            {topic.symbol: topic.version for topic in topics},
            [self._add(topic) for topic in topics],
            topics[0].epoch,
        )

    def _removal(self, removal: Removal) -> QuotesPatch:
        topics, renamed = removal.topics, removal.renamed
        operations = [Remove(topic.pointer) for topic in topics]
        if not removal.given:
            versions = {topic.symbol: topic.version for topic in topics}
            return QuotesPatch(removal.ts, versions, operations, renamed=renamed)
        quotes = self._quotes(topics)
        both = [*quotes.operations, *operations]
        return QuotesPatch(quotes.ts, quotes.versions, both, quotes.epoch, renamed)

    def _add(self, topic: Shown) -> Add:
        if self.fields is None:
            return Add(topic.pointer, topic.quote)
        value: dict[str, Value] = {field: getattr(topic.quote, field) for field in self.fields}
        return Add(topic.pointer, value)


class _Replaced(msgspec.Struct):
    path: str
    value: float | int | str | None


class _Changed(msgspec.Struct):
    ts: int
    operations: list[_Replaced]


_read_changed = msgspec.json.Decoder(_Changed).decode


def read_change(payload: bytes, topic: Shown, version: int) -> QuoteChange:
    """Return the change of `topic` that made `version`, from its message in the view JSON."""
    message = _read_changed(payload)
    fields = tuple(each.path.rpartition("/")[2] for each in message.operations)
    values = tuple(
        msgspec.convert(each.value, datetime | None) if field == "last_updated" else each.value
        for field, each in zip(fields, message.operations, strict=True)
    )
    difference = Difference(fields, values)
    return QuoteChange(topic.symbol, topic.pointer, version, message.ts, difference)


JSON = JsonView()
"""The view of a client that asks for no other."""
