"""The client's side of the protocol: opening request, frame headers, message contents. No I/O."""

import re
import zlib
from urllib.parse import SplitResult

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
"""The example key of RFC 6455 §1.3. Keys protect proxies, which a benchmark has not."""

LONG_TEXT_FRAME = b"\x81\x7e"
"""The first bytes of every frame with 126 to 65,535 bytes of text. ASCII JSON has no 0x81."""

SHORTEST_LONG_FRAME = 4 + 126
"""Bytes of its header and text."""

PING = 0x89
PONG = 0x8A
CLOSE = 0x88

COMPRESSED = 0x40
"""The bit of a frame's first byte for a compressed message (RFC 7692 §6)."""

OFFER_COMPRESSION = "Sec-WebSocket-Extensions: permessage-deflate\r\n"

HEADER = re.compile(
    rb'\{"type":"quotes_patch","ts":(\d+),"versions":\{([^}]*)\},"operations":\[\{"op":"(\w)'
)
"""`ts`, versions and the first operation's first letter: all that a client parses of a message."""


def opening_request(url: SplitResult, query: str, *, compressed: bool = False) -> bytes:
    """Return the request for a WebSocket; `compressed` offers compression."""
    extensions = OFFER_COMPRESSION if compressed else ""
    return (
        f"GET {url.path}?{query} HTTP/1.1\r\nHost: {url.netloc}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{extensions}\r\n"
    ).encode()


def control_frame(opcode: int, payload: bytes = b"") -> bytes:
    """Return a client's control frame. It must be masked (RFC 6455 §5.3); a mask of 0 is cheapest."""
    return bytes((opcode, 0x80 | len(payload), 0, 0, 0, 0)) + payload


def next_frame(buffer: bytes, start: int) -> tuple[int, int] | None:
    """Return begin and end of the payload of the frame at `start`; None if it is not complete."""
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
    """Count the long text frames that begin in the first `size` bytes.

    The buffer may begin within a frame. A search for one byte that then skips the shortest frame takes
    half the time of `count` for both bytes.
    """
    first, second = LONG_TEXT_FRAME
    frames, at, last = 0, 0, size - 1
    while (at := buffer.find(first, at, last)) >= 0:
        if buffer[at + 1] == second:
            frames += 1
            at += SHORTEST_LONG_FRAME
        else:
            # This byte belongs to a length.
            at += 1
    return frames


def inflate(payload: bytes) -> bytes:
    """Decompress a message that was compressed by itself (RFC 7692 §7.2.2)."""
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(payload + b"\0\0\xff\xff")


def parse_versions(text: bytes) -> dict[bytes, int]:
    """Parse `"AAPL":3,"MSFT":7` into versions by quoted symbol."""
    versions = {}
    for part in text.split(b","):
        symbol, _, version = part.rpartition(b":")
        versions[symbol] = int(version)
    return versions
