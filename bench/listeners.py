"""Many WebSocket clients in one thread, far cheaper than the server they listen to.

Frames are counted from their headers. Of a payload only `ts` and `versions` are looked at, with one
regular expression: enough to know that no update is missing and how long each took.
"""

import re
import select
import socket
from time import time
from urllib.parse import urlsplit

from bench.target import TargetError

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
"""RFC 6455 §1.3's example: the key protects proxies, not a benchmark."""

CONNECT_TIMEOUT = 10.0

_HEADER = re.compile(
    rb'\{"type":"quotes_patch","ts":(\d+),"versions":\{"[^"]+":(\d+)\},"operations":\[\{"op":"(\w)'
)


class Listener:
    """One connection: its socket, what it has read, the version it is at."""

    __slots__ = ("buffer", "frames", "missed", "sock", "version")

    def __init__(self, sock: socket.socket, rest: bytes) -> None:
        self.sock = sock
        self.buffer = rest
        self.version = 0
        self.frames = 0
        self.missed = 0


class Listeners:
    """All connections. `latencies`: seconds from intake to here, of every update."""

    def __init__(self) -> None:
        self.all: list[Listener] = []
        self.latencies: list[float] = []
        self.bytes = 0
        self._epoll = select.epoll()
        self._by_fd: dict[int, Listener] = {}

    def add(self, url: str) -> None:
        """Open one more. Errors: TargetError."""
        parts = urlsplit(url)
        request = (
            f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        try:
            sock = socket.create_connection((parts.hostname, parts.port or 80), CONNECT_TIMEOUT)
            sock.sendall(request.encode())
            received = b""
            while b"\r\n\r\n" not in received:
                if not (data := sock.recv(4096)):
                    break
                received += data
        except OSError as error:
            raise TargetError(f"cannot connect to {parts.netloc}: {error}") from None
        head, _, rest = received.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101 "):
            raise TargetError(f"refused: {head[:60]!r} {rest[:200]!r}")
        sock.setblocking(False)
        listener = Listener(sock, rest)
        self.all.append(listener)
        self._by_fd[sock.fileno()] = listener
        self._epoll.register(sock, select.EPOLLIN)
        self._take(listener, time())

    def read_until(self, end: float) -> None:
        """Read everything that comes until `end`, in Unix seconds. Errors: TargetError."""
        while (left := end - time()) > 0:
            for fd, _ in self._epoll.poll(left):
                listener = self._by_fd[fd]
                data = listener.sock.recv(65536)
                if not data:
                    raise TargetError("the server ended a connection")
                self.bytes += len(data)
                listener.buffer = listener.buffer + data if listener.buffer else data
                self._take(listener, time())

    def close(self) -> None:
        """Let go of all sockets."""
        for listener in self.all:
            listener.sock.close()
        self._epoll.close()

    def _take(self, listener: Listener, now: float) -> None:
        buffer, start = listener.buffer, 0
        while (payload := _payload(buffer, start)) is not None:
            start = payload[1]
            if found := _HEADER.match(buffer, payload[0]):
                version = int(found[2])
                if found[3] == b"r":
                    listener.frames += 1
                    listener.missed += version - listener.version - 1
                    self.latencies.append(now - int(found[1]) / 1e6)
                elif listener.version:  # a full quote in place of updates that were merged
                    listener.missed += version - listener.version
                listener.version = version
        listener.buffer = buffer[start:]


def _payload(buffer: bytes, start: int) -> tuple[int, int] | None:
    """Where the next frame's payload begins and ends; None if it is not there as a whole."""
    have = len(buffer) - start
    if have < 2:
        return None
    size, begin = buffer[start + 1], start + 2
    if size == 126:
        size, begin = int.from_bytes(buffer[begin : begin + 2]), begin + 2
    elif size == 127:
        size, begin = int.from_bytes(buffer[begin : begin + 8]), begin + 8
    return (begin, begin + size) if begin + size <= len(buffer) else None
