"""WebSocket frames as a server sends them: unmasked, unfragmented (RFC 6455 §5.2)."""

import struct
from typing import Protocol, Self

MAX_CONTROL_PAYLOAD = 125
"""Bytes: RFC 6455 §5.5."""

_TEXT = 0x81
_CLOSE = 0x88
_PONG = 0x8A

PING_FRAME = b"\x89\x00"
"""A ping with nothing in it."""


class Source(Protocol):
    """Something whose current state can be sent at any time in place of all that was missed."""

    def current_frame(self) -> bytes:
        """The whole current state as one frame."""


class UpdateFrame(bytes):
    """One update of `source`; a full socket's outbox drops it and owes the source instead."""

    source: Source

    def __new__(cls, frame: bytes, source: Source) -> Self:
        self = super().__new__(cls, frame)
        self.source = source
        return self


def text_frame(payload: bytes) -> bytes:
    """`payload`, which is UTF-8, as one text message."""
    size = len(payload)
    if size < 126:
        return bytes((_TEXT, size)) + payload
    if size < 65536:
        return struct.pack("!BBH", _TEXT, 126, size) + payload
    return struct.pack("!BBQ", _TEXT, 127, size) + payload


def pong_frame(payload: bytes) -> bytes:
    """The answer to a ping with `payload`."""
    return bytes((_PONG, len(payload))) + payload


def close_frame(code: int | None, reason: str = "") -> bytes:
    """A close frame; without a code its payload is empty (RFC 6455 §7.1.5)."""
    if code is None:
        return bytes((_CLOSE, 0))
    text = reason.encode()[: MAX_CONTROL_PAYLOAD - 2]
    return struct.pack("!BBH", _CLOSE, 2 + len(text), code) + text
