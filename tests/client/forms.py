"""The server's end of a connection in a compact form, for the tests of the client."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from quotestream.decoder import Decoder
from quotestream.document import Document
from server.quotes.compact import CompactView
from server.quotes.patch import difference, quote_pointer
from server.quotes.quote import Quote
from server.quotes.view import Form, QuoteChange

EPOCH = "7.ab"


@dataclass
class Shown:
    """A topic, as a view sees it."""

    pointer: str
    quote: Quote
    version: int
    ts: int
    epoch: str

    @property
    def symbol(self) -> str:
        return self.quote.symbol


class Encoder:
    """Makes the messages of one connection as the server does, as text or as MessagePack."""

    def __init__(self, form: Form, fields: Sequence[str] = ()) -> None:
        self.subprotocol = f"quotestream.v1.{form}"
        self._view = CompactView(form, tuple(fields) or None)

    def pack(self, value: Any) -> str | bytes:
        """Return any message in the connection's form."""
        return msgspec.msgpack.encode(value) if self._view.binary else json.dumps(value)

    def schema(self) -> str | bytes:
        """Return the first message."""
        return self._message(self._view.opening())

    def full(self, version: int, *quotes: Quote, ts: int, epoch: str = EPOCH) -> str | bytes:
        """Return full quotes, all with one version."""
        shown = [Shown("", quote, version, ts, epoch) for quote in quotes]
        return self._message(self._view.full(shown))

    def change(
        self, version: int | tuple[int, int], old: Quote, new: Quote, ts: int
    ) -> str | bytes:
        """Return the change from one quote to another. With chosen fields `version` is two of them."""
        since, now = (0, version) if isinstance(version, int) else version
        pointer = quote_pointer(new.symbol)
        change = QuoteChange(new.symbol, pointer, now, ts, difference(old, new))
        return self._message(self._view.change(change, since))

    def _message(self, payload: bytes) -> str | bytes:
        return payload if self._view.binary else payload.decode()


def take(document: Document, decoder: Decoder, *data: str | bytes) -> list[str]:
    """Apply messages in order, and return the symbols that need a resync."""
    missed: list[str] = []
    for each in data:
        for message in decoder.messages(each):
            if message["type"] == "quotes_patch":
                missed += document.apply(message)
    return missed
