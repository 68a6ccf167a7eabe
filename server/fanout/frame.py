"""WebSocket frames as a server sends them: unmasked, unfragmented (RFC 6455 §5.2)."""

import struct
import zlib
from typing import ClassVar, Protocol, Self

from server.quotes.view import View

MAX_CONTROL_PAYLOAD = 125
"""Bytes: RFC 6455 §5.5."""

DEFLATE_WINDOW_BITS = 12
"""A window of 4 KB. An update is a tenth of that, and a larger window only takes longer to set up."""

DEFLATE_MEMORY_LEVEL = 5

_TEXT = 0x81
_BINARY = 0x82
_RSV1 = 0x40
_CLOSE = 0x88
_PONG = 0x8A

PING_FRAME = b"\x89\x00"
"""A ping without a payload."""


class Source(Protocol):
    """Something whose current state can be sent at any time in place of all missed updates."""

    __slots__ = ()

    trails: ClassVar[bool] = False
    """Whether its frame has to come behind those of all sources that are pending already."""

    @property
    def key(self) -> object:
        """The key of the source's pending entry: a source replaces the one with the same key."""
        return self

    def current_frame(self, view: View) -> "UpdateFrame":
        """Return the whole current state as one frame for clients of `view`."""


class UpdateFrame(bytes):
    """One update of `source`. If the socket is full, the outbox drops the update, and later sends
    the current state of the source.
    """

    source: Source
    _deflated: "DeflatedFrame | None" = None

    def __new__(cls, frame: bytes, source: Source) -> Self:
        self = super().__new__(cls, frame)
        self.source = source
        return self

    @property
    def deflated(self) -> "DeflatedFrame":
        """The update's compressed form, made once for all connections that negotiated compression."""
        if self._deflated is None:
            self._deflated = DeflatedFrame(deflate(self), self.source)
        return self._deflated


class DeflatedFrame(UpdateFrame):
    """An update in its compressed form."""

    @property
    def deflated(self) -> "DeflatedFrame":
        return self


def text_frame(payload: bytes) -> bytes:
    """Return `payload`, which is UTF-8, as one text message."""
    return _frame(_TEXT, payload)


def message_frame(payload: bytes, view: View) -> bytes:
    """Return `payload` as one message, text or binary as the view's form is."""
    return _frame(_BINARY if view.binary else _TEXT, payload)


def payload_of(frame: bytes) -> bytes:
    """Return the payload of a frame of the server."""
    return frame[{126: 4, 127: 10}.get(frame[1], 2) :]


def deflate(frame: bytes) -> bytes:
    """Return a message as permessage-deflate has it, without context takeover (RFC 7692 §7.2.1)."""
    compressor = zlib.compressobj(
        zlib.Z_DEFAULT_COMPRESSION, zlib.DEFLATED, -DEFLATE_WINDOW_BITS, DEFLATE_MEMORY_LEVEL
    )
    data = compressor.compress(payload_of(frame)) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return _frame(frame[0] | _RSV1, data[:-4])


def _frame(first: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 65536:
        return struct.pack("!BBH", first, 126, size) + payload
    return struct.pack("!BBQ", first, 127, size) + payload


def pong_frame(payload: bytes) -> bytes:
    """Return the answer to a ping with `payload`."""
    return bytes((_PONG, len(payload))) + payload


def close_frame(code: int | None, reason: str = "") -> bytes:
    """Return a close frame; without a code its payload is empty (RFC 6455 §7.1.5)."""
    if code is None:
        return bytes((_CLOSE, 0))
    text = reason.encode()[: MAX_CONTROL_PAYLOAD - 2]
    return struct.pack("!BBH", _CLOSE, 2 + len(text), code) + text
