"""Every refusal of a connection before the upgrade: status, code and headers, in one table."""

from enum import Enum
from math import ceil
from random import uniform
from typing import NamedTuple

import h11

from server.config.redaction import redact
from server.quotes.messages import encode

MIN_RETRY, MAX_RETRY = 1, 5
"""Seconds in `Retry-After`, drawn at random: clients refused together should not come back together."""


class Reason(NamedTuple):
    """`status`: the HTTP status; `headers`: those that the status calls for."""

    status: int
    code: str
    headers: tuple[tuple[str, str], ...] = ()


class Refused(Enum):
    """The refusals of HTTP and of the protocol. The latter are in the order in which the server
    decides.
    """

    BAD_REQUEST = Reason(400, "bad_request")
    REQUEST_TIMEOUT = Reason(408, "request_timeout")
    TOO_LARGE = Reason(413, "too_large")
    HEADERS_TOO_LARGE = Reason(431, "headers_too_large")
    NOT_FOUND = Reason(404, "not_found")
    UPGRADE_REQUIRED = Reason(
        426,
        "upgrade_required",
        (("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")),  # RFC 6455 §4.4
    )
    ORIGIN_NOT_ALLOWED = Reason(403, "origin_not_allowed")
    AT_CAPACITY = Reason(503, "at_capacity")
    UNAUTHORIZED = Reason(401, "unauthorized", (("WWW-Authenticate", "Bearer"),))  # RFC 6750 §3
    FORBIDDEN = Reason(403, "forbidden")
    RATE_LIMITED = Reason(429, "rate_limited")
    TOO_MANY_CONNECTIONS = Reason(429, "too_many_connections")
    NO_VALID_SYMBOLS = Reason(400, "no_valid_symbols")
    TOO_MANY_SYMBOLS = Reason(400, "too_many_symbols")
    TOO_MANY_VIEWS = Reason(400, "too_many_views")
    STORE_UNAVAILABLE = Reason(503, "store_unavailable")
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


def response(refusal: Refusal, connection: h11.Connection, *, has_body: bool) -> bytes:
    """Return the whole HTTP response, to be written at once."""
    reason = refusal.refused.value
    body = encode({"error": {"code": reason.code, "message": redact(str(refusal))}})
    headers = [
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
        # A browser must not take the body for a page.
        ("X-Content-Type-Options", "nosniff"),
        *reason.headers,
    ]
    if reason.status in RETRIED:
        headers.append(("Retry-After", retry_after(refusal.wait)))
    parts = [
        connection.send(h11.Response(status_code=reason.status, headers=headers)),
        connection.send(h11.Data(data=body if has_body else b"")),
        connection.send(h11.EndOfMessage()),
    ]
    return b"".join(part for part in parts if part)
