"""Every refusal of a connection: status, code, headers and close code, in one table."""

from collections.abc import Sequence
from enum import Enum
from math import ceil
from random import uniform
from typing import NamedTuple

import h11

from server.config.redaction import redact
from server.quotes.messages import encode

MIN_RETRY, MAX_RETRY = 1, 5
"""Seconds in `Retry-After`, drawn at random: clients refused together should not come back together."""

MAX_CLOSE_REASON = 123
"""Bytes: a control frame has at most 125, and the close code takes two (RFC 6455 §5.5)."""

CLOSE_OPCODE = 0x88
"""The first byte of a whole close frame (RFC 6455 §5.2)."""


class Reason(NamedTuple):
    """`status`: the HTTP status; `headers`: those that the status calls for. `close`: the close code
    for clients that ask for `refuse=close`, 0 if they too get the HTTP response.
    """

    status: int
    code: str
    headers: tuple[tuple[str, str], ...] = ()
    close: int = 0


class Refused(Enum):
    """The refusals of HTTP and of the protocol. The latter are in the order in which the server
    decides.
    """

    BAD_REQUEST = Reason(400, "bad_request", close=4400)
    REQUEST_TIMEOUT = Reason(408, "request_timeout")
    TOO_LARGE = Reason(413, "too_large")
    HEADERS_TOO_LARGE = Reason(431, "headers_too_large")
    NOT_FOUND = Reason(404, "not_found")
    UPGRADE_REQUIRED = Reason(
        426,
        "upgrade_required",
        (("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")),  # RFC 6455 §4.4
    )
    ORIGIN_NOT_ALLOWED = Reason(403, "origin_not_allowed", close=4403)
    AT_CAPACITY = Reason(503, "at_capacity", close=4503)
    UNAUTHORIZED = Reason(
        401,
        "unauthorized",
        (("WWW-Authenticate", "Bearer"),),  # RFC 6750 §3
        close=4401,
    )
    FORBIDDEN = Reason(403, "forbidden", close=4403)
    RATE_LIMITED = Reason(429, "rate_limited", close=4429)
    TOO_MANY_CONNECTIONS = Reason(429, "too_many_connections", close=4409)
    NO_VALID_SYMBOLS = Reason(400, "no_valid_symbols", close=4400)
    TOO_MANY_SYMBOLS = Reason(400, "too_many_symbols", close=4400)
    TOO_MANY_VIEWS = Reason(400, "too_many_views", close=4400)
    STORE_UNAVAILABLE = Reason(503, "store_unavailable", close=4503)
    HTTP_VERSION = Reason(505, "http_version_not_supported")


WITHOUT_USER = frozenset(
    {
        Refused.BAD_REQUEST,
        Refused.HEADERS_TOO_LARGE,
        Refused.NOT_FOUND,
        Refused.UPGRADE_REQUIRED,
        Refused.ORIGIN_NOT_ALLOWED,
        Refused.UNAUTHORIZED,
    }
)
"""Refusals before a user is known, by the client's fault. The server charges the client's address."""

RETRIED = frozenset({429, 503})
"""Statuses with a header `Retry-After` (RFC 9110 §10.2.3, RFC 6585 §4)."""


class Refusal(Exception):
    """A request does not become a connection. `message` goes into the body. `wait`: seconds until the
    client may come back, 0 if unknown.
    """

    def __init__(self, refused: Refused, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.refused = refused
        self.wait = wait


def retry_after(wait: float) -> str:
    """Return the header's value: at least `wait` seconds, and at least a random time."""
    return str(ceil(max(wait, uniform(MIN_RETRY, MAX_RETRY))))


def close_frame(refusal: Refusal) -> bytes:
    """Return the close frame of a refusal, with the reason `code: message` (RFC 6455 §5.5.1).

    A known `wait` stands at the end of the reason, as a browser hides the header `Retry-After`.
    """
    _, code, _, close = refusal.refused.value
    end = f"; retry after {retry_after(refusal.wait)} s".encode() if refusal.wait else b""
    text = f"{code}: {redact(str(refusal))}".encode()[: MAX_CLOSE_REASON - len(end)]
    # The cut may have split a character.
    reason = text.decode(errors="ignore").encode() + end
    payload = close.to_bytes(2) + reason
    return bytes((CLOSE_OPCODE, len(payload))) + payload


def response(
    refusal: Refusal,
    connection: h11.Connection,
    further: Sequence[tuple[str, str]] = (),
    *,
    has_body: bool,
) -> bytes:
    """Return the whole HTTP response, with `further` headers, to be written at once."""
    reason = refusal.refused.value
    body = encode({"error": {"code": reason.code, "message": redact(str(refusal))}})
    headers = [
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
        # A browser must not take the body for a page.
        ("X-Content-Type-Options", "nosniff"),
        *reason.headers,
        *further,
    ]
    if reason.status in RETRIED:
        headers.append(("Retry-After", retry_after(refusal.wait)))
    parts = [
        connection.send(h11.Response(status_code=reason.status, headers=headers)),
        connection.send(h11.Data(data=body if has_body else b"")),
        connection.send(h11.EndOfMessage()),
    ]
    return b"".join(part for part in parts if part)
