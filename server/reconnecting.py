"""When a client comes back: its back-off, and what a refused handshake says. No I/O, no clock."""

import json
import os
import random
from collections.abc import Iterable
from contextlib import suppress
from email.utils import parsedate_to_datetime
from socket import gaierror
from time import time

FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0
"""Seconds: the wait before a reconnection is random, below a limit that doubles up to the longest."""

CONNECT_TIMEOUT = 10.0
"""Seconds for the TCP connection, and again for the handshake."""

PING_INTERVAL, PING_TIMEOUT = 20.0, 10.0
"""Seconds between two pings, and for the answer. Without pings, a pulled cable goes unnoticed."""

CLOSE_TIMEOUT = 1.0
"""Seconds for the last bytes to leave; then the connection is cut."""

LASTING = 10.0
"""Seconds after which an accepted connection counts as one that lasted: the back-off starts over."""

LONGEST_ASKED = 3600.0
"""Seconds that a server may ask to be left alone. A larger number is taken for a mistake."""

LATER = {4429, 4503}
"""Close codes in place of a status with `Retry-After`."""

LATER_RANGE = 1.0, 5.0
"""Seconds: the range of the random wait after LATER, as docs/protocol.md asks for."""

MAX_BODY = 64 * 1024
"""Bytes of a refused handshake's body that are read. A server's has less than a thousand."""

LONGEST_TEXT = 300
"""Characters of a server's text that an error shows."""

ENDED = "the connection ended"
NOT_A_SERVER = "the server does not speak HTTP or WebSocket"
HTTP_STATUS = "the server answered with HTTP status {}"
"""Texts of ConnectionFailed. The last one takes the status."""

PASSING = {408, 425, 429}
"""Statuses below 500 that time may cure. Other statuses below 500 are about the request itself."""


class Backoff:
    """Draws the wait before the next connection: exponential, with full jitter."""

    def __init__(self) -> None:
        self._attempt = 0
        self._accepted_at: float | None = None

    def accepted(self, now: float) -> None:
        """Note that the server accepted the connection at `now`, in seconds of any steady clock."""
        self._accepted_at = now

    def next(self, now: float, asked: float = 0.0) -> float:
        """Return the seconds to wait, at least the `asked` ones up to LONGEST_ASKED.

        The range doubles with each call and starts over only after a connection that lasted: a server
        that accepts and closes at once would otherwise be asked several times a second.
        """
        if self._accepted_at is not None and now - self._accepted_at >= LASTING:
            self._attempt = 0
        self._accepted_at = None
        wait = random.uniform(0, min(LONGEST_DELAY, FIRST_DELAY * 2**self._attempt))
        self._attempt = min(self._attempt + 1, 16)
        return max(wait, min(asked, LONGEST_ASKED))


class ConnectionFailed(Exception):
    """A connection could not be made, or broke. The message gives the reason.

    `status` is the HTTP status of a refused handshake, else zero, and `code` the code of its body.
    `retry_after` is how long the other server asks to be left alone, in seconds.
    """

    def __init__(
        self, problem: str, status: int = 0, retry_after: float = 0.0, code: str = ""
    ) -> None:
        super().__init__(problem)
        self.status = status
        self.retry_after = retry_after
        self.code = code


def unreachable(address: str, error: BaseException) -> ConnectionFailed:
    """Return the error for a server at `address` that cannot be reached. Its text has the reason."""
    cause = error
    if isinstance(error.__cause__, ExceptionGroup):
        # trio lists the failures at each of the name's addresses.
        cause = error.__cause__.exceptions[0]
    reason = str(cause) or ENDED
    # Libraries put texts of their own into the built-in errors. Others, as of TLS, say the reason.
    if isinstance(cause, OSError) and cause.errno and type(cause).__module__ == "builtins":
        reason = os.strerror(cause.errno)
    elif isinstance(cause, gaierror):
        reason = cause.strerror or reason
    return ConnectionFailed(f"cannot connect to {address}: {reason}")


def is_final(status: int) -> bool:
    """Return whether a handshake's HTTP status is about the request itself. Zero stands for none."""
    return 0 < status < 500 and status not in PASSING


def asked_by_close(code: int) -> float:
    """Return the seconds for which a server that closed with `code` wants to be left alone."""
    return random.uniform(*LATER_RANGE) if code in LATER else 0.0


def refused_handshake(
    status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes
) -> ConnectionFailed:
    """Return the error for an HTTP response that is not 101."""
    message, code = HTTP_STATUS.format(status), ""
    with suppress(ValueError, LookupError, TypeError, RecursionError):
        error = json.loads(body)["error"]
        message, code = readable(str(error["message"])), readable(str(error.get("code", "")))
    return ConnectionFailed(message, status, _asked(headers), code)


def cut_refusal(status: int, headers: Iterable[tuple[bytes, bytes]]) -> ConnectionFailed:
    """Return the error for a refusal whose body did not come to its end.

    It is never final, as such a message is not complete (RFC 9112 §8). The wait that it asks for holds.
    """
    return ConnectionFailed(HTTP_STATUS.format(status), retry_after=_asked(headers))


def _asked(headers: Iterable[tuple[bytes, bytes]]) -> float:
    """Return the seconds of `Retry-After`, 0 without one."""
    found = (value for name, value in headers if name.lower() == b"retry-after")
    return retry_after(next(found, b"").decode("ascii", "replace"))


def readable(text: str) -> str:
    """Return a server's text for an error or a log: not too long, on one line, and without characters
    that a terminal could take for a command.
    """
    shown = text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in shown)


def retry_after(value: str) -> float:
    """Return the seconds until the moment that the header's `value` names (RFC 9110 §10.2.3).

    They are 0 for a moment that has passed, and for another text.
    """
    if value.isascii() and value.isdigit():
        return float(value)
    with suppress(ValueError, OverflowError):
        return max(0.0, parsedate_to_datetime(value).timestamp() - time())
    return 0.0
