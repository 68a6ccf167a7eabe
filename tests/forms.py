"""Reads the server's messages in every form without the server's code, and checks their rules."""

import json
import struct
from datetime import UTC, datetime, timedelta
from typing import Any

import jsonpatch

FORMS = ("json", "compact", "msgpack")

Quote = dict[str, Any]


def unpack(data: bytes) -> Any:
    """Decode one MessagePack value, which must be all of `data`."""
    value, end = _unpack(data, 0)
    assert end == len(data), "bytes follow the message"
    return value


def _unpack(data: bytes, at: int) -> tuple[Any, int]:
    first, at = data[at], at + 1
    if first < 0x80:
        return first, at
    if first >= 0xE0:
        return first - 0x100, at
    if first in SCALARS:
        size = struct.calcsize(SCALARS[first])
        return struct.unpack(SCALARS[first], data[at : at + size])[0], at + size
    if first in CONSTANTS:
        return CONSTANTS[first], at
    if first < 0xC0:
        kind, count = first & (0xE0 if first >= 0xA0 else 0xF0), first & 0xF
        count = first & 0x1F if kind == 0xA0 else count
    else:
        kind, size = SIZED[first]
        count, at = int.from_bytes(data[at : at + size]), at + size
    if kind == 0xA0:
        return data[at : at + count].decode(), at + count
    items = []
    for _ in range(count * (2 if kind == 0x80 else 1)):
        item, at = _unpack(data, at)
        items.append(item)
    return (dict(zip(items[::2], items[1::2], strict=True)) if kind == 0x80 else items), at


SCALARS = {0xCB: "!d", 0xCC: "!B", 0xCD: "!H", 0xCE: "!I", 0xCF: "!Q"}
SCALARS |= {0xD0: "!b", 0xD1: "!h", 0xD2: "!i", 0xD3: "!q"}
CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
SIZED = {0xD9: (0xA0, 1), 0xDA: (0xA0, 2), 0xDB: (0xA0, 4), 0xDC: (0x90, 2), 0xDD: (0x90, 4)}
SIZED |= {0xDE: (0x80, 2), 0xDF: (0x80, 4)}


def decimals(number: float) -> int:
    """Return the number of decimals that a JSON number shows."""
    text = f"{number!r}".partition("e")
    shown = len(text[0].partition(".")[2].rstrip("0"))
    return max(0, shown - int(text[2] or 0))


def derive(quote: Quote) -> None:
    """Compute `change` and `change_percent` as docs/protocol.md says."""
    price, base = quote["current_price"], quote["base_price"]
    if price is None or base is None:
        quote |= {"change": None, "change_percent": None}
        return
    quote["change"] = round(price - base, max(decimals(price), decimals(base)))
    quote["change_percent"] = round((price - base) * 100 / base, 4) if base > 0 else None


class FormDocument:
    """The quotes of one client, as its messages make them. `control` are the other messages.

    `seen` has each quote by symbol and version. With a selection of `fields`, the rule for versions is
    the one of selections.
    """

    def __init__(self, form: str, fields: str = "") -> None:
        self.form = form
        self.selected = bool(fields)
        self.quotes: dict[str, Quote] = {}
        self.versions: dict[str, int] = {}
        self.epoch = ""
        self.epochs: dict[str, str] = {}
        self.schema: list[str] = []
        self.derived: list[str] = []
        self.control: list[dict[str, Any]] = []
        self.seen: dict[tuple[str, str, int], Quote] = {}
        self.changes = 0

    def read(self, opcode: int, payload: bytes) -> Any:
        """Apply one message, and return it."""
        assert opcode == (2 if self.form == "msgpack" else 1)
        message = unpack(payload) if self.form == "msgpack" else json.loads(payload)
        if isinstance(message, list):
            self._on_array(*message)
        elif message["type"] == "quotes_patch":
            assert self.form == "json"
            self._on_patch(message)
        else:
            self._on_object(message)
        return message

    def position(self) -> str:
        """Return the parameter `resume`: the versions of the newest epoch."""
        newest = [symbol for symbol in self.quotes if self.epochs[symbol] == self.epoch]
        return f"{self.epoch}:{','.join(f'{symbol}={self.versions[symbol]}' for symbol in newest)}"

    def go_on_from(self, before: "FormDocument") -> None:
        """Begin with the quotes of the connection before."""
        self.quotes = {symbol: dict(quote) for symbol, quote in before.quotes.items()}
        self.versions, self.epochs = dict(before.versions), dict(before.epochs)
        self.epoch = before.epoch

    def _on_object(self, message: dict[str, Any]) -> None:
        if message["type"] == "schema":
            assert not self.schema
            self.schema, self.derived = message["fields"], message.get("derived", [])
            return
        if message.get("recovered") is not None:
            self.quotes = {s: q for s, q in self.quotes.items() if s in message["recovered"]}
        self.control.append(message)

    def _on_array(self, kind: str, *rest: Any) -> None:
        assert self.schema, "the schema comes first"
        if kind == "d":
            for symbol in rest[0]:
                self.quotes.pop(symbol, None)
            return
        if kind == "s":
            self.epoch = rest[0]
        ts, entries = rest[-2:]
        for symbol, version, mask, *values in entries:
            fields = [name for bit, name in enumerate(self.schema) if mask >> bit & 1]
            new = dict(zip(fields, values, strict=True))
            if new.get("last_updated") is not None:
                new["last_updated"] = rfc3339(ts + new["last_updated"])
            if kind == "s":
                assert fields == self.schema
                self.quotes[symbol] = new if self.selected else {"symbol": symbol, **new}
                self.epochs[symbol] = self.epoch
                self._note(symbol, version)
            else:
                self.quotes[symbol] |= new
                self._advance(symbol, *(version if self.selected else (version - 1, version)))

    def _on_patch(self, message: dict[str, Any]) -> None:
        kinds = {operation["op"] for operation in message["operations"]}
        if "epoch" in message:
            self.epoch = message["epoch"]
        document = {"quotes": self.quotes}
        jsonpatch.apply_patch(document, message["operations"], in_place=True)
        for symbol, version in message["versions"].items():
            if kinds == {"replace"}:
                assert ("since" in message) is self.selected
                since = message["since"][symbol] if self.selected else version - 1
                self._advance(symbol, since, version)
            elif symbol in self.quotes:
                self.epochs[symbol] = self.epoch
                self._note(symbol, version)

    def _advance(self, symbol: str, since: int, version: int) -> None:
        held = self.versions[symbol]
        assert since <= held < version, f"{symbol}: {held} is not in {since}..{version}"
        if not self.selected:
            assert held == since
        self.changes += 1
        self._note(symbol, version)

    def _note(self, symbol: str, version: int) -> None:
        self.versions[symbol] = version
        if self.derived:
            derive(self.quotes[symbol])
        self.seen[self.epochs[symbol], symbol, version] = dict(self.quotes[symbol])


def rfc3339(time_us: int) -> str:
    """Return a time as JSON has it."""
    moment = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=time_us)
    text = moment.strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{moment.microsecond:06}Z" if moment.microsecond else f"{text}Z"


def selected(quote: Quote, fields: str) -> Quote:
    """Return the fields of a quote that a client selected, all of them without `fields`."""
    names = fields.split(",") if fields else list(quote)
    return {name: quote[name] for name in names}
