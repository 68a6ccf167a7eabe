"""The bare loop: the fastest that the kernel allows any server, without trio and parsing.

It answers every request with the same 101. Then, `rate` times a second, it writes the same bytes to
every connection: `burst` frames of one update each, in one write. Before each round it only sets the
time and the version in the frames. Its figures are the reference for the server's.
"""

import select
import socket
import struct
from time import monotonic

from bench.message import Update
from bench.peers.options import say_address, settings
from bench.wire import KEY

BACKLOG = 4096

ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""The answer to the example key of RFC 6455 §1.3, the only key that our generator sends."""

RESPONSE = (
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
).encode()


def frame(message: str | bytes) -> bytes:
    """Return a message as one frame: binary for bytes."""
    first, payload = (0x81, message.encode()) if isinstance(message, str) else (0x82, message)
    size = len(payload)
    head = bytes((first, size)) if size < 126 else struct.pack("!BBH", first, 126, size)
    return head + payload


def serve(rate: float, burst: int, update: Update) -> None:
    """Print the address, then serve until killed."""

    def frames(version: int) -> bytes:
        """Return one update of each of `burst` symbols, each in its own frame."""
        return b"".join(frame(update(f"S{number:03}", version)) for number in range(burst))

    listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    listener.setblocking(False)
    say_address(listener)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    waiting: dict[int, socket.socket] = {}
    clients: dict[int, socket.socket] = {}
    version, due = 1, monotonic() + 1 / rate
    while True:
        for fd, _ in poll.poll(max(0.0, due - monotonic())):
            if fd == listener.fileno():
                _accept(listener, poll, waiting)
            elif sock := waiting.pop(fd, None):
                sock.recv(65536)
                sock.send(RESPONSE + frames(version))
                clients[fd] = sock
            else:
                # A client only sends its close frame.
                poll.unregister(fd)
                clients.pop(fd).close()
        if monotonic() >= due:
            version += 1
            _write(clients, frames(version))
            due = max(due + 1 / rate, monotonic())


def _accept(listener: socket.socket, poll: select.epoll, waiting: dict[int, socket.socket]) -> None:
    try:
        while True:
            sock, _ = listener.accept()
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            waiting[sock.fileno()] = sock
            poll.register(sock, select.EPOLLIN)
    except BlockingIOError:
        pass


def _write(clients: dict[int, socket.socket], data: bytes) -> None:
    for sock in clients.values():
        try:
            sock.send(data)
        except OSError:
            # A client that is full or gone misses this round.
            pass


def main() -> None:
    """Run as a process of its own."""
    assert KEY == "dGhlIHNhbXBsZSBub25jZQ==", "ACCEPT belongs to this key"
    serve(*settings())


if __name__ == "__main__":
    main()
