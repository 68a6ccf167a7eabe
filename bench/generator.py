"""Many WebSocket clients in one thread, far cheaper than the server that they load.

They share a loop and a buffer. Some clients, the sample, read at once and parse `ts` and versions:
enough to find missing updates and measure latencies. The others only count frames by their first bytes.
They read every SWEEP_INTERVAL, many frames at a time, which their kernel buffers easily hold. Nothing
is allocated for their frames.
"""

import select
import socket
from collections import Counter, deque
from collections.abc import Callable
from time import monotonic, time_ns
from urllib.parse import urlsplit

import msgspec

from bench.forms import BadContent, Form, Update
from bench.latency import Latencies
from bench.wire import (
    CLOSE,
    COMPRESSED,
    PING,
    PONG,
    control_frame,
    inflate,
    next_frame,
    opening_request,
)

BUFFER_BYTES = 256 * 1024
"""Bytes of one read: twice a socket's default receive buffer."""

EVENTS = 256
"""Sockets read between two looks at the sample: half a millisecond."""

SWEEP_INTERVAL = 0.02
"""Seconds between two reads of the clients that only count."""

SOURCES = [f"127.0.0.{number}" for number in range(1, 9)]
"""Local addresses to connect from, in turn. Each has 28,000 ports, and a closed connection holds its
port for a minute (TIME_WAIT).
"""

IP_BIND_ADDRESS_NO_PORT = 24
"""A socket option (ip(7)) that the `socket` module does not have."""

OPENED = b"HTTP/1.1 101 "


class Client:
    """One connection. `opened_at` and `answered_at` (of the first message) are monotonic seconds."""

    __slots__ = (
        "answered_at",
        "frames",
        "handle",
        "missed",
        "opened_at",
        "request",
        "rest",
        "sampled",
        "sock",
        "versions",
    )

    def __init__(self, sock: socket.socket, request: bytes, *, sampled: bool) -> None:
        self.sock = sock
        self.request = request
        self.sampled = sampled
        self.rest = b""
        self.versions: dict[bytes, int] = {}
        self.frames = 0
        self.missed = 0
        self.opened_at = monotonic()
        self.answered_at = 0.0
        self.handle: Callable[[Client], None]


class Generator:
    """All clients and their counts. They ask for messages of one form.

    `latencies`: from the server's intake (`ts`) to the client, in microseconds, for every update of the
    sample. `last`: the latency of the last client, by `ts`. `failed`: reasons of failed handshakes
    and of connections that the server ended. `on_update` gets the quoted symbol and version of every
    update of the sample.
    """

    def __init__(self, url: str, form: Form) -> None:
        self._url = urlsplit(url)
        self._form = form
        # A mark that is cut by the end of a read has at most these bytes in it.
        self._cut = 1 - len(form.mark)
        host, port = self._url.hostname or "", self._url.port or 80
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        self._family, self._address = found[0], found[4]
        self._local = self._address[0] == "127.0.0.1"
        self._epoll = select.epoll()
        self._counting = select.epoll()
        self._sweep_at = 0.0
        self._buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._by_fd: dict[int, Client] = {}
        self._others: dict[int, tuple[socket.socket, Callable[[], None]]] = {}
        self.clients: set[Client] = set()
        self.answered: deque[Client] = deque()
        self.failed: Counter[str] = Counter()
        self.latencies = Latencies()
        self.last: dict[int, int] = {}
        self.opened = 0
        self.pending = 0
        self.frames = 0
        self.bytes = 0
        self.jumps = 0
        self.on_update: Callable[[bytes, int], None] | None = None

    def open(
        self, query: str, *, sampled: bool = True, receive_buffer: int = 0, compressed: bool = False
    ) -> Client:
        """Begin to connect, which continues in `run_until`.

        `answered` gets the client with its first message. A `compressed` client must be `sampled`.
        """
        sock = socket.socket(self._family, socket.SOCK_STREAM)
        sock.setblocking(False)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if self._local:
            sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((SOURCES[self.opened % len(SOURCES)], 0))
        self.opened += 1
        self.pending += 1
        query += self._form.query
        request = opening_request(self._url, query, compressed=compressed)
        client = Client(sock, request, sampled=sampled)
        client.handle = self._connected
        sock.connect_ex(self._address)
        self.clients.add(client)
        self._by_fd[sock.fileno()] = client
        self._epoll.register(sock, select.EPOLLOUT)
        return client

    def run_until(self, end: float) -> None:
        """Serve all clients until `end`, in monotonic seconds."""
        poll, sweep, by_fd = self._epoll.poll, self._counting.poll, self._by_fd
        while (left := end - (now := monotonic())) > 0:
            for fd, _ in poll(min(left, max(0.0, self._sweep_at - now)), EVENTS):
                if client := by_fd.get(fd):
                    client.handle(client)
                elif other := self._others.get(fd):
                    other[1]()
            if monotonic() >= self._sweep_at:
                ready = sweep(0, EVENTS)
                for fd, _ in ready:
                    self._count(by_fd[fd])
                if len(ready) < EVENTS:
                    self._sweep_at = monotonic() + SWEEP_INTERVAL

    def serve(self, sock: socket.socket, on_readable: Callable[[], None]) -> None:
        """Let the loop serve a socket that is not a client's, and close it at the end."""
        self._others[sock.fileno()] = sock, on_readable
        self._epoll.register(sock, select.EPOLLIN)

    def pause(self, client: Client) -> None:
        """Stop reading from `client`."""
        self._epoll.unregister(client.sock)

    def read_some(self, client: Client, size: int) -> None:
        """Read at most `size` bytes of a paused client, and drop them."""
        try:
            self.bytes += client.sock.recv_into(self._view, size)
        except OSError:
            # There is nothing to read, or the server gave the client up.
            pass

    def cut(self, client: Client) -> None:
        """Close without a close frame, as a crash does."""
        self._forget(client)
        client.sock.close()

    def leave(self, client: Client) -> None:
        """Close as a well-behaved client does: close frame, the server's answer, end of stream."""
        if not client.sampled:
            self._counting.unregister(client.sock)
            self._epoll.register(client.sock, select.EPOLLIN)
        client.handle = self._leaving
        try:
            client.sock.send(control_frame(CLOSE, b"\x03\xe8"))
        except OSError as error:
            self._fail(client, error.strerror or "cut")

    def reset(self) -> None:
        """Reset all counts."""
        self.latencies = Latencies()
        self.last = {}
        self.frames = self.bytes = self.jumps = 0
        for client in self.clients:
            client.frames = client.missed = 0

    @property
    def missed(self) -> int:
        """Return the number of versions that the sample got neither by update nor by full quote."""
        return sum(client.missed for client in self.clients)

    def close(self) -> None:
        """Close all sockets."""
        for client in list(self.clients):
            self.cut(client)
        for sock, _ in self._others.values():
            sock.close()
        self._epoll.close()
        self._counting.close()

    def _forget(self, client: Client) -> None:
        self.clients.discard(client)
        if self._by_fd.pop(client.sock.fileno(), None) and client.handle in (
            self._connected,
            self._upgrading,
            self._first,
        ):
            self.pending -= 1

    def _fail(self, client: Client, reason: str) -> None:
        self.failed[reason] += 1
        self.cut(client)

    def _connected(self, client: Client) -> None:
        if error := client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._fail(client, socket.errno.errorcode[error])  # type: ignore[attr-defined]  # re-exported
            return
        client.sock.send(client.request)
        client.request = b""
        client.handle = self._upgrading
        self._epoll.modify(client.sock, select.EPOLLIN)

    def _upgrading(self, client: Client) -> None:
        data = client.rest + self._receive(client)
        head, end, rest = data.partition(b"\r\n\r\n")
        if not end:
            client.rest = data
        elif not head.startswith(OPENED):
            self._fail(client, head.partition(b"\r\n")[0].decode("latin-1"))
        else:
            client.rest = b""
            client.handle = self._first
            if rest:
                self._first(client, rest)

    def _first(self, client: Client, data: bytes = b"") -> None:
        """Take the first message, of any kind but a schema: from then on the client is served."""
        data = client.rest + (data or self._receive(client))
        client.rest = data
        frame = next_frame(data, 0)
        if frame and self._form.is_schema(data, frame[0]):
            frame = next_frame(data, frame[1])
        if frame is None:
            return
        client.answered_at = monotonic()
        self.pending -= 1
        self.answered.append(client)
        client.rest = b""
        client.handle = self._parse
        if client.sampled:
            self._take(client, data)
            return
        client.handle = self._count
        self._epoll.unregister(client.sock)
        self._counting.register(client.sock, select.EPOLLIN)
        client.rest = data[self._cut :]
        self._add_frames(client, self._form.count(data[frame[1] :], len(data) - frame[1]))

    def _receive(self, client: Client) -> bytes:
        try:
            size = client.sock.recv_into(self._view)
        except OSError as error:
            size, reason = 0, error.strerror or "cut"
        else:
            reason = "ended by the server"
        if not size and client.sock.fileno() in self._by_fd:
            self._fail(client, reason)
        self.bytes += size
        return bytes(self._view[:size])

    def _parse(self, client: Client) -> None:
        self._take(client, client.rest + self._receive(client))

    def _take(self, client: Client, data: bytes) -> None:
        start = 0
        while payload := next_frame(data, start):
            begin, end = payload
            if data[start] == PING:
                client.sock.send(control_frame(PONG, data[begin:end]))
            elif data[start] & COMPRESSED:
                message = inflate(data[begin:end])
                self._note(client, message, 0, len(message))
            else:
                self._note(client, data, begin, end)
            start = end
        client.rest = data[start:]

    def _note(self, client: Client, data: bytes, begin: int, end: int) -> None:
        try:
            for update in self._form.read(data, begin, end):
                self._update(client, update)
        except (BadContent, ValueError, msgspec.DecodeError) as error:
            self.failed[f"a message is not valid: {error}"] += 1

    def _update(self, client: Client, update: Update) -> None:
        known = client.versions
        ts, symbol, since, version = update
        if since is None:
            # This is a full quote, maybe in place of merged updates.
            self.jumps += version - known.get(symbol, version)
            known[symbol] = version
            return
        client.missed += not since <= known.get(symbol, 0) < version
        known[symbol] = version
        client.frames += 1
        self.frames += 1
        latency = time_ns() // 1000 - ts
        self.latencies.add(latency)
        self.last[ts] = latency
        if self.on_update:
            self.on_update(symbol, version)

    def _count(self, client: Client) -> None:
        try:
            size = client.sock.recv_into(self._view)
        except OSError:
            size = 0
        if not size:
            self._fail(client, "ended by the server")
            return
        self.bytes += size
        buffer, form, cut = self._buffer, self._form, self._cut
        # A mark may come in two reads, or more.
        before = client.rest + buffer[: min(size, -cut)]
        self._add_frames(client, form.count(buffer, size) + (form.mark in before))
        client.rest = bytes(buffer[size + cut : size]) if size >= -cut else bytes(before[cut:])
        if (payload := form.find_ping(buffer, size)) is not None:
            client.sock.send(control_frame(PONG, payload))

    def _add_frames(self, client: Client, frames: int) -> None:
        client.frames += frames
        self.frames += frames

    def _leaving(self, client: Client) -> None:
        try:
            size = client.sock.recv_into(self._view)
        except OSError:
            size = 0
        if not size:
            self.cut(client)
