"""Publishers for a benchmark: over HTTP and over a WebSocket, within the loop of the clients.

They send trades whose prices go up and down. Each notes when it sent a price, so that a client's
version of the symbol tells how long the price was on its way.
"""

import json
import socket
import sys
from abc import ABC, abstractmethod
from array import array
from collections.abc import Sequence
from time import monotonic, time_ns
from typing import Any, Protocol
from urllib.parse import urlsplit

from bench.generator import Generator
from bench.target import OwnServer, TargetError
from bench.wire import CLOSE, PING, PONG, control_frame, next_frame, opening_request

BATCH = 500
"""Prices of one request."""

UNANSWERED = 64
"""Frames without an answer: the server reads no more."""

TICK = 0.001
"""Seconds between two looks whether prices are due."""

ANSWER_TIMEOUT = 30.0
"""Seconds to wait for the last answers."""

SEND_BUFFER = 1024 * 1024
"""Bytes of a socket's send buffer, so that no send waits while the clients have to be read."""

READ_BYTES = 64 * 1024

USER = "press"


class Prices:
    """The prices of `symbols`, one symbol after the other.

    `sent`: by quoted symbol, when each of its prices was sent, in microseconds since 1970.
    """

    def __init__(self, symbols: Sequence[tuple[str, float]]) -> None:
        self.sent = {f'"{symbol}"'.encode(): array("q") for symbol, _ in symbols}
        self.count = 0
        self._symbols = [
            (symbol, price, self.sent[f'"{symbol}"'.encode()]) for symbol, price in symbols
        ]

    def take(self, count: int) -> list[bytes]:
        """Return the next prices, and note that they are sent now."""
        found = []
        now = time_ns() // 1000
        for number in range(self.count, self.count + count):
            seq, place = divmod(number, len(self._symbols))
            symbol, price, sent = self._symbols[place]
            sent.append(now)
            text = '{"symbol":"%s","price":%.2f,"size":100,"ts":%d,"seq":%d}'
            found.append((text % (symbol, price + seq % 97 / 100, now, seq)).encode())
        self.count += count
        return found


class Publisher(Protocol):
    """One publisher. `answered`: the prices that the server has published."""

    prices: Prices
    answered: int

    def pump(self, allowed: int) -> None:
        """Send prices, up to `allowed` in all, as far as the answers permit."""


class _Connection(ABC):
    """A publisher's socket in the clients' loop, which calls `_take` with all bytes."""

    def __init__(self, generator: Generator, prices: Prices, url: str, request: bytes) -> None:
        self.prices = prices
        self.answered = 0
        self.allowed = 0
        address = urlsplit(url)
        self.sock = socket.create_connection((address.hostname, address.port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self.rest = b""
        self.sock.sendall(request)
        generator.serve(self.sock, self._read)

    def pump(self, allowed: int) -> None:
        self.allowed = allowed
        self.send()

    @abstractmethod
    def send(self) -> None:
        """Send what is allowed now."""

    def _read(self) -> None:
        data = self.sock.recv(READ_BYTES)
        if not data:
            raise TargetError("the server ended a publisher's connection")
        self.rest += data
        self.take()
        self.send()

    @abstractmethod
    def take(self) -> None:
        """Take the complete answers out of `rest`."""

    def count(self, answer: dict[str, Any], answered: int) -> None:
        """Count prices. Errors: TargetError unless all were accepted."""
        if answer.get("accepted") != answered:
            raise TargetError(f"of {answered} prices some were not accepted: {answer}")


class HttpPublisher(_Connection):
    """Posts BATCH prices a request over one connection, each after the answer to the one before."""

    def __init__(self, generator: Generator, server: OwnServer, prices: Prices) -> None:
        host = urlsplit(server.http).netloc
        self._head = (
            f"POST /prices HTTP/1.1\r\nHost: {host}\r\n"
            f"Authorization: Bearer {server.token(USER, role='publisher')}\r\n"
        )
        self._waits = False
        super().__init__(generator, prices, server.http, b"")

    def send(self) -> None:
        if self._waits or self.prices.count + BATCH > self.allowed:
            return
        body = b"\n".join(self.prices.take(BATCH))
        self._waits = True
        self.sock.sendall(f"{self._head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def take(self) -> None:
        head, _, body = self.rest.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        if not length or len(body) < int(length):
            return
        if not head.startswith(b"HTTP/1.1 200 "):
            raise TargetError(f"a batch was refused: {body.decode()}")
        self.count(json.loads(body), BATCH)
        self.rest, self._waits = b"", False
        self.answered += BATCH


class SocketPublisher(_Connection):
    """Sends one price a frame, with at most UNANSWERED frames without an answer."""

    def __init__(self, generator: Generator, server: OwnServer, prices: Prices) -> None:
        url = server.url.replace("/ws/quotes", "/ws/prices")
        self._open = False
        query = f"token={server.token(USER, role='publisher')}"
        super().__init__(generator, prices, url, opening_request(urlsplit(url), query))

    def send(self) -> None:
        unanswered = self.prices.count - self.answered
        free = min(UNANSWERED - unanswered, self.allowed - self.prices.count)
        if self._open and free > 0:
            self.sock.sendall(b"".join(map(_frame, self.prices.take(free))))

    def take(self) -> None:
        if not self._open:
            head, end, rest = self.rest.partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 101 "):
                raise TargetError(f"a publisher was refused: {head.decode()}")
            self.rest, self._open = rest, True
        start = 0
        while payload := next_frame(self.rest, start):
            opcode, (begin, start) = self.rest[start], payload
            content = self.rest[begin:start]
            if opcode == PING:
                self.sock.sendall(control_frame(PONG, content))
                continue
            if opcode == CLOSE:
                raise TargetError(f"the server closed a publisher's connection: {content!r}")
            answer = json.loads(content)
            self.answered = answer["frames"]
            self.count(answer, self.answered)
        self.rest = self.rest[start:]


def _frame(text: bytes) -> bytes:
    """Return a client's text frame of at most 125 bytes, masked with 0 (RFC 6455 §5.3)."""
    return bytes((0x81, 0x80 | len(text), 0, 0, 0, 0)) + text


def publish(
    generator: Generator, publishers: Sequence[Publisher], seconds: float, rate: float = 0.0
) -> float:
    """Publish for `seconds`, and return the published prices a second.

    Arguments:
        rate: prices a second of all publishers; 0 for as many as the server takes.
    """
    before = [each.prices.count for each in publishers]
    answered = sum(each.answered for each in publishers)
    start, marked = monotonic(), 0.0
    while (passed := monotonic() - start) < seconds:
        for each, count in zip(publishers, before, strict=True):
            due = int(rate * passed / len(publishers))
            each.pump(count + due if rate else sys.maxsize)
        generator.run_until(min(monotonic() + TICK, start + seconds))
        if passed >= marked + 1:
            marked = passed
            generator.latencies.mark()
    return (sum(each.answered for each in publishers) - answered) / passed


def settle(generator: Generator, publishers: Sequence[Publisher]) -> None:
    """Wait until all prices are answered. Errors: TargetError."""
    for each in publishers:
        each.pump(0)
    deadline = monotonic() + ANSWER_TIMEOUT
    while any(each.answered < each.prices.count for each in publishers):
        if monotonic() > deadline:
            raise TargetError("the server does not answer a publisher")
        generator.run_until(monotonic() + TICK)
