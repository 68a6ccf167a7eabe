"""Checks requests to the HTTP port before Hypercorn sees them, without I/O.

Hypercorn gets each request whole and rewritten: an HTTP/1.1 request without a body or an upgrade. So no
hostile bytes reach its HTTP/2, WebSocket and chunk parsers. The application gets the body beside it.
"""

from typing import NamedTuple

import h11

from server.gateway.refusals import Refusal, Refused
from server.gateway.request import MAX_HEADERS, NOT_HTTP, check_host, parse_head
from server.gateway.target import split_target
from server.intake.objects import MAX_BATCH_BYTES

MAX_HEAD = 128 * 1024
"""Bytes of a request's head. The longest list of symbols takes 75 KiB with every character escaped. So
a longer list still gets the error for too many symbols.
"""

MAX_BODY = 64 * 1024
"""Bytes of a request's body that no route reads."""

MAX_FILE = 4 * 1024 * 1024
"""Bytes of a file with instruments: some 50,000 of them. The command `quotestream import` takes more.
"""

READ_BODIES = {b"/prices": MAX_BATCH_BYTES, b"/ops/import": MAX_FILE}
"""Paths of the routes that read a body, and its most bytes."""

CHUNK_OVERHEAD = 2
"""Largest ratio of a chunked body's bytes on the wire to those allowed: for chunks of eight bytes or
more.
"""

_DROPPED = set(
    b"connection keep-alive proxy-connection upgrade http2-settings te trailer "
    b"transfer-encoding content-length expect".split()
)
"""Headers about the connection (RFC 9110 §7.6.1) and the body's framing. The edge handles them."""


class Target(NamedTuple):
    """A request target in origin form, and the authority if the client sent one (RFC 9112 §3.2)."""

    path: bytes
    authority: bytes | None


class IncomingRequest:
    """One request: a head, then its body in pieces.

    `event` is the head as parsed by h11, `on_wire` the number of the body's bytes received. `body` has
    them, if a route reads them. `is_whole`: all of the body has come. `is_lost`: its
    rest comes too late, or never.
    """

    def __init__(self, head: bytes) -> None:
        """Parse and check the head. Errors: Refusal."""
        self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._size = 0
        self.on_wire = 0
        self.is_whole = self.is_lost = False
        self.body = bytearray()
        self.event = parse_head(head, self._parser)
        check_host(self.event)
        self._headers = self.event.headers
        if self.event.http_version not in (b"1.0", b"1.1"):
            raise Refusal(Refused.HTTP_VERSION, "this port speaks HTTP/1.1 only")
        # Hypercorn would make the method upper case, but methods are case-sensitive (RFC 9110 §9.1).
        if self.event.method != self.event.method.upper():
            raise Refusal(Refused.BAD_REQUEST, "methods are written in upper case")
        if len(self._headers) > MAX_HEADERS:
            raise Refusal(Refused.HEADERS_TOO_LARGE, f"more than {MAX_HEADERS} headers")
        if b"websocket" in self._tokens(b"upgrade"):
            raise Refusal(
                Refused.NOT_FOUND, "no WebSocket here, quotes are streamed on the other port"
            )
        self._target = _origin_form(self.event)
        path, _, _ = self._target.path.partition(b"?")
        most = READ_BODIES.get(path)
        self.is_read, self._most = most is not None, most or MAX_BODY
        self._check_framing(head)

    @property
    def expects_continue(self) -> bool:
        """Return whether the client waits for `100 Continue` (RFC 9110 §10.1.1)."""
        return self._parser.they_are_waiting_for_100_continue

    @property
    def has_body(self) -> bool:
        """Return whether the request has a body, perhaps of bytes to come."""
        return self._size > 0 or not self.is_whole

    @property
    def can_skip(self) -> bool:
        """Return whether the body's rest is sure to come, and short enough to be read and dropped."""
        lengths = self._values(b"content-length")
        # Without `100 Continue` the client may never send its body (RFC 9110 §10.1.1).
        will_come = bool(lengths) and not (self.expects_continue or self.is_lost)
        return will_come and int(lengths[0]) - self._size <= MAX_BODY

    def drop_body(self) -> None:
        """Keep none of the body's bytes, as no route reads them."""
        self.is_read = False
        self.body.clear()

    def take_body(self, received: bytearray) -> bool:
        """Take the body's bytes from the front of `received`; True once the body is complete.

        Errors: Refusal.
        """
        # h11 would take an empty buffer for the end of the stream.
        if received:
            self.on_wire += len(received)
            self._parser.receive_data(bytes(received))
            received.clear()
        try:
            while isinstance(event := self._parser.next_event(), h11.Data):
                self._size += len(event.data)
                if self._size > self._most:
                    raise self._too_large()
                if self.is_read:
                    self.body += event.data
        except h11.RemoteProtocolError:
            raise Refusal(Refused.BAD_REQUEST, NOT_HTTP) from None
        if isinstance(event, h11.EndOfMessage):
            received += self._parser.trailing_data[0]
            self.is_whole = True
            return True
        if self.on_wire > CHUNK_OVERHEAD * self._most:
            raise self._too_large()
        return False

    def rewritten(self) -> bytes:
        """Return the request for Hypercorn, without its body.

        With a body, Hypercorn would close the connection if an answer were complete before it read all.
        """
        event, (path, authority) = self.event, self._target
        lines = [b"%s %s HTTP/%s" % (event.method, path, event.http_version)]
        lines += [
            b"%s: %s" % (name, authority if name == b"host" and authority else value)
            for name, value in self._headers
            if name not in _DROPPED
        ]
        if b"close" in self._tokens(b"connection"):
            lines.append(b"connection: close")
        return b"\r\n".join([*lines, b"", b""])

    def _check_framing(self, head: bytes) -> None:
        """Refuse a body with more than one length (RFC 9112 §6.1)."""
        # Counted in the raw head, as h11 merges equal headers.
        lengths = head.lower().count(b"\r\ncontent-length:")
        chunked = len(self._values(b"transfer-encoding"))
        if lengths + chunked > 1 or (chunked and self.event.http_version == b"1.0"):
            raise Refusal(Refused.BAD_REQUEST, "the body's length is given in more than one way")
        if lengths and int(self._values(b"content-length")[0]) > self._most:
            raise self._too_large()

    def _too_large(self) -> Refusal:
        return Refusal(Refused.TOO_LARGE, f"the request's body exceeds {self._most} bytes")

    def _values(self, wanted: bytes) -> list[bytes]:
        return [value for name, value in self._headers if name == wanted]

    def _tokens(self, wanted: bytes) -> list[bytes]:
        values = b",".join(self._values(wanted))
        return [token.strip().lower() for token in values.split(b",")]


def _origin_form(event: h11.Request) -> Target:
    """Accept the absolute form of a target too, as RFC 9112 §3.2.2 demands. Errors: Refusal."""
    target = event.target.decode("ascii")
    if target.startswith("/") or (target == "*" and event.method == b"OPTIONS"):
        return Target(event.target, None)
    path, query = split_target(target)
    if not path.startswith("/"):
        raise Refusal(Refused.BAD_REQUEST, "the request's target is neither a path nor a URL")
    authority = target.partition("://")[2].removesuffix(f"?{query}").removesuffix(path)
    origin = f"{path}?{query}" if query else path
    return Target(origin.encode(), authority.encode())
