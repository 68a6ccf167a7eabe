"""Encodes quotes in the compact forms, as PROTOCOL.md describes them: a server's other half."""

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from server.client.decoder import Decoder, Form
from server.client.document import Document
from server.quotes.quote import Quote, to_microseconds

EPOCH = "7.ab"

DERIVED = ("change", "change_percent")

FIELDS = tuple(field for field in Quote.__struct_fields__ if field not in {"symbol", *DERIVED})
"""The fields of a connection that did not choose any."""


class Encoder:
    """Makes the messages of one connection in the compact form, as text or as MessagePack."""

    def __init__(
        self, form: Form, fields: Sequence[str] = FIELDS, derived: Sequence[str] = DERIVED
    ) -> None:
        self.subprotocol = f"quotestream.v1.{form}"
        self._fields = fields
        self._derived = derived

    def pack(self, value: Any) -> str | bytes:
        """Return any message in the connection's form."""
        if self.subprotocol.endswith("msgpack"):
            return msgspec.msgpack.encode(value)
        return json.dumps(value)

    def schema(self) -> str | bytes:
        """Return the first message."""
        return self.pack({"type": "schema", "fields": self._fields, "derived": self._derived})

    def full(self, version: int, *quotes: Quote, ts: int, epoch: str = EPOCH) -> str | bytes:
        """Return full quotes, all with one version."""
        rows = [[quote.symbol, version, *self._values(None, quote, ts)] for quote in quotes]
        return self.pack(["s", epoch, ts, rows])

    def change(
        self, version: int | tuple[int, int], old: Quote, new: Quote, ts: int
    ) -> str | bytes:
        """Return the change from one quote to another."""
        return self.pack(["u", ts, [[new.symbol, version, *self._values(old, new, ts)]]])

    def _values(self, old: Quote | None, new: Quote, ts: int) -> list[Any]:
        mask, values = 0, []
        for bit, field in enumerate(self._fields):
            value = getattr(new, field)
            if old is None or value != getattr(old, field):
                mask |= 1 << bit
                moment = field == "last_updated" and value is not None
                values.append(to_microseconds(value) - ts if moment else value)
        return [mask, *values]


def take(document: Document, decoder: Decoder, *data: str | bytes) -> list[str]:
    """Apply messages in order, and return the symbols that need a resync."""
    missed: list[str] = []
    for each in data:
        for message in decoder.messages(each):
            if message["type"] == "quotes_patch":
                missed += document.apply(message)
    return missed
