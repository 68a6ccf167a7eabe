"""HTTP/2 input for a port that speaks HTTP/1.1 only."""

import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, _GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    0, 1, 2, 3, 4, 6, 7, 8, 9,
)  # a table # fmt: skip
END_STREAM, END_HEADERS = 0x1, 0x4
INITIAL_WINDOW_SIZE = 4

GET, POST, HTTP, ROOT = b"\x82", b"\x83", b"\x86", b"\x84"
"""HPACK's static entries for the method, the scheme and the path `/` (RFC 7541, appendix A)."""

AUTHORITY = b"\x01\x01a"
"""The header `:authority: a`; without it a request is refused too early."""


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """Return one frame (RFC 9113 §4.1)."""
    return struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload


def path(target: bytes) -> bytes:
    """Return `:path` as HPACK writes it, not indexed."""
    return b"\x04" + bytes([len(target)]) + target


def headers(stream: int, block: bytes, flags: int = END_STREAM | END_HEADERS) -> bytes:
    """Return a request's head, which names its host."""
    return frame(HEADERS, flags, stream, block + AUTHORITY)


def opening(**settings: int) -> bytes:
    """Return the preface and settings."""
    numbers = {"window": INITIAL_WINDOW_SIZE}
    payload = b"".join(struct.pack("!HI", numbers[name], value) for name, value in settings.items())
    return PREFACE + frame(SETTINGS, 0, 0, payload)


def _streams(count: int) -> range:
    return range(1, 2 * count, 2)


_METRICS = GET + HTTP + path(b"/metrics")

ATTACKS = {
    "preface": opening(),
    "a request": opening() + headers(1, GET + HTTP + path(b"/healthz")),
    "1,001 priorities": opening()
    + b"".join(frame(PRIORITY, 0, stream, bytes(5)) for stream in _streams(1001)),
    "a flood of priorities": opening() + frame(PRIORITY, 0, 1, bytes(5)) * 50_000,
    "CONNECT without a path": opening() + headers(1, b"\x02\x07CONNECT"),
    "a path that is not ASCII": opening() + headers(1, GET + HTTP + path(b"/\xff\xfe")),
    "a request without a path": opening() + headers(1, GET + HTTP),
    "window 0": opening(window=0) + b"".join(headers(stream, _METRICS) for stream in _streams(100)),
    "rapid reset": opening()
    + b"".join(
        headers(stream, _METRICS) + frame(RST_STREAM, 0, stream, bytes(4))
        for stream in _streams(2000)
    ),
    "a head without end": opening()
    + headers(1, GET + HTTP + ROOT, END_STREAM)
    + frame(CONTINUATION, 0, 1, b"\x00\x01x\x01y" * 1000) * 200,
    "a body of 3 MB": opening()
    + headers(1, POST + HTTP + path(b"/healthz"), END_HEADERS)
    + frame(DATA, 0, 1, bytes(16_384)) * 192,
    "pings": opening() + frame(PING, 0, 0, bytes(8)) * 10_000,
    "settings": opening() + frame(SETTINGS) * 10_000,
    "window updates": opening() + frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff") * 2,
    "HPACK that is spoiled": opening() + headers(1, b"\xff" * 20),
    "a frame that is too long": opening() + b"\xff\xff\xff" + bytes(20_000),
    "the preface alone, spoiled": PREFACE.replace(b"SM", b"XX"),
}
"""Each must be answered with 505 or not at all, and the connection closed."""
