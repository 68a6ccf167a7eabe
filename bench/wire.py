"""The client's half of the wire: the opening request, frames' headers, what a message says. No I/O."""

import re
import zlib
from urllib.parse import SplitResult

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
"""RFC 6455 §1.3's example: the key protects proxies, not a benchmark."""

LONG_TEXT_FRAME = b"\x81\x7e"
"""How every frame with 126 to 65,535 bytes of text begins; the first byte is not in ASCII JSON."""

SHORTEST_LONG_FRAME = 4 + 126
"""Bytes of its header and text."""

PING = 0x89
CLOSE = 0x88

COMPRESSED = 0x40
"""The bit of a frame's first byte that says so (RFC 7692 §6)."""

OFFER_COMPRESSION = "Sec-WebSocket-Extensions: permessage-deflate\r\n"

HEADER = re.compile(
    rb'\{"type":"quotes_patch","ts":(\d+),"versions":\{([^}]*)\},"operations":\[\{"op":"(\w)'
)
"""`ts`, versions and the first operation's first letter: all that is looked at of a message."""


def opening_request(url: SplitResult, query: str, *, compressed: bool = False) -> bytes:
    """The request that asks for a WebSocket; `compressed`: one that may compress."""
    extensions = OFFER_COMPRESSION if compressed else ""
    return (
        f"GET {url.path}?{query} HTTP/1.1\r\nHost: {url.netloc}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{extensions}\r\n"
    ).encode()


def control_frame(opcode: int, payload: bytes = b"") -> bytes:
    """A client's control frame, masked as it has to be (RFC 6455 §5.3) with the cheapest mask, 0."""
    return bytes((opcode, 0x80 | len(payload), 0, 0, 0, 0)) + payload


def next_frame(buffer: bytes, start: int) -> tuple[int, int] | None:
    """Where the payload of the frame at `start` begins and ends; None if it is not there as a whole."""
    have = len(buffer) - start
    if have < 2:
        return None
    size, begin = buffer[start + 1], start + 2
    if size == 126:
        size, begin = int.from_bytes(buffer[begin : begin + 2]), begin + 2
    elif size == 127:
        size, begin = int.from_bytes(buffer[begin : begin + 8]), begin + 8
    return (begin, begin + size) if begin + size <= len(buffer) else None


def count_long_frames(buffer: bytes | bytearray, size: int) -> int:
    """How many of them begin in the first `size` bytes, wherever those begin.

    Looking for one byte, and then beyond that frame's header, takes half of `count`'s time for two.
    """
    first, second = LONG_TEXT_FRAME
    frames, at, last = 0, 0, size - 1
    while (at := buffer.find(first, at, last)) >= 0:
        if buffer[at + 1] == second:
            frames += 1
            at += SHORTEST_LONG_FRAME
        else:  # a length's
            at += 1
    return frames


def inflate(payload: bytes) -> bytes:
    """What a message says that was compressed for itself (RFC 7692 §7.2.2)."""
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(payload + b"\0\0\xff\xff")


def parse_versions(text: bytes) -> dict[bytes, int]:
    """`"AAPL":3,"MSFT":7` as a dictionary of quoted symbols."""
    versions = {}
    for part in text.split(b","):
        symbol, _, version = part.rpartition(b":")
        versions[symbol] = int(version)
    return versions
