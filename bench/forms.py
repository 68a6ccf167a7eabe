"""The forms of a server's messages: how a client asks for one, and the least that it reads of it.

A client of the sample proves the version of each update, and compares each compact row with its mask.
All others count changes by the bytes that each begins with. No I/O.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import urlencode

import msgspec

from bench.wire import HEADER, LONG_TEXT_FRAME, PING, count_long_frames, parse_versions

EMPTY_PING = bytes((PING, 0))

BINARY = b"\x82"
"""The first byte of a binary message."""

SINCE = re.compile(rb'"since":\{([^}]*)\}')


class BadContent(Exception):
    """A message breaks the rules of its form."""


class Update(NamedTuple):
    """A symbol's new version. `symbol` has quotation marks, as in JSON. `since` is the version before
    it in this selection of fields, None for a full quote.
    """

    ts: int
    symbol: bytes
    since: int | None
    version: int


class Form:
    """JSON Patch with all fields, or some. The other forms derive from it.

    `mark`: bytes that each change begins with. `query`: the part of a request that asks for the form.
    """

    name = "json"
    mark = LONG_TEXT_FRAME
    _schema = b'{"type":"schema"'

    def __init__(self, fields: str = "") -> None:
        self.fields = fields
        asked = {"format": self.name} if self.name != Form.name else {}
        asked |= {"fields": fields} if fields else {}
        self.query = f"&{urlencode(asked, safe=',')}" if asked else ""

    def __str__(self) -> str:
        return f"{self.name}, {self.fields} only" if self.fields else self.name

    def count(self, buffer: bytes | bytearray, size: int) -> int:
        """Count the marks in the first `size` bytes. A read may end within one."""
        return count_long_frames(buffer, size)

    def is_schema(self, data: bytes, begin: int) -> bool:
        """Return whether the message at `begin` only names the fields of those to come."""
        return data.startswith(self._schema, begin)

    def find_ping(self, buffer: bytes | bytearray, size: int) -> bytes | None:
        """Return the payload of a ping in the first `size` bytes, None without a ping."""
        if (at := buffer.find(PING, 0, size)) < 0:
            return None
        return bytes(buffer[at + 2 : min(size, at + 2 + buffer[at + 1])])

    def read(self, data: bytes, begin: int, end: int) -> Iterator[Update]:
        """Yield the updates of a message, none if it has no quotes. Errors: BadContent."""
        if not (found := HEADER.match(data, begin, end)):
            return
        ts, versions = int(found[1]), parse_versions(found[2])
        said = SINCE.search(data, found.end(), end) if self.fields else None
        since = parse_versions(said[1]) if said else {}
        for symbol, version in versions.items():
            before = since.get(symbol, version - 1) if found[3] == b"r" else None
            yield Update(ts, symbol, before, version)


class Compact(Form):
    """Rows of values in JSON."""

    name = "compact"
    mark = b'["u",'
    _kinds = (b'["u"', b'["s"')

    def count(self, buffer: bytes | bytearray, size: int) -> int:
        return buffer.count(self.mark, 0, size)

    def read(self, data: bytes, begin: int, end: int) -> Iterator[Update]:
        if not data.startswith(self._kinds, begin):
            return
        kind, *_, ts, rows = self.decode(data[begin:end])
        for symbol, told, mask, *values in rows:
            if mask.bit_count() != len(values):
                raise BadContent(f"{symbol} has {len(values)} values for the mask {mask}")
            if kind == "s":
                since, version = None, told
            else:
                since, version = told if self.fields else (told - 1, told)
            yield Update(ts, b'"%s"' % symbol.encode(), since, version)

    def decode(self, payload: bytes) -> Any:
        """Return the value that a payload stands for."""
        return msgspec.json.decode(payload)


class MessagePack(Compact):
    """Rows of values in MessagePack. `mark` has the first bytes of `ts`, too, as three bytes could be
    part of a number.
    """

    name = "msgpack"
    mark = b"\x93\xa1u\xcf\x00\x06"
    _schema = b"\x83\xa4type\xa6schema"
    _kinds = (b"\x93\xa1u", b"\x94\xa1s")

    def find_ping(self, buffer: bytes | bytearray, size: int) -> bytes | None:
        # A number may have the bytes of a ping, so a message or the end must be behind them.
        ends = buffer.endswith(EMPTY_PING, 0, size)
        return b"" if ends or buffer.find(EMPTY_PING + BINARY, 0, size) >= 0 else None

    def decode(self, payload: bytes) -> Any:
        return msgspec.msgpack.decode(payload)


FORMS = {form.name: form for form in (Form, Compact, MessagePack)}
