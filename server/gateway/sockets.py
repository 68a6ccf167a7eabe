"""Non-blocking TCP sockets as the gateway uses them.

Plain sockets and trio's `wait_readable`, not `trio.SocketStream`: the outbox writes without a task
switch, and a connection that only listens holds a few hundred bytes of frames instead of thousands.
"""

import socket
import sys

import trio

BACKLOG = 4096
"""Handshakes the kernel queues (Linux's default somaxconn): a reconnect storm of a second or two."""

NOTSENT_LOWAT = 16 * 1024
"""Bytes, trio's own: a peer that does not read then absorbs 100 KB of kernel memory, not 4 MB."""

USER_TIMEOUT_MS = 180_000
"""Milliseconds until the kernel gives up a peer that acknowledges nothing, or reads nothing: the last
line (RFC 5482). Longer than heartbeats and circuit breakers, which tell a dead peer from a slow one.
"""

_TCP_INFO_RETRANSMITS, _TCP_INFO_PROBES, _TCP_INFO_LAST_ACK = 2, 3, 56
"""Offsets in Linux' `struct tcp_info`; the last one is in milliseconds, of four bytes."""


class BindError(Exception):
    """An address cannot be listened on; the message says which and why."""


def bind(host: str, port: int) -> list[socket.socket]:
    """Listening sockets for `host`, one per address it has. Errors: BindError.

    The options are set here once: Linux hands them on to every accepted socket.
    """
    sockets: list[socket.socket] = []
    try:
        for family, _, _, _, address in _addresses(host, port):
            listener = socket.create_server(address, family=family, backlog=BACKLOG)
            sockets.append(listener)
            listener.setblocking(False)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOTSENT_LOWAT)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
    except (OSError, OverflowError) as error:
        for listener in sockets:
            listener.close()
        reason = error.strerror if isinstance(error, OSError) else None
        raise BindError(f"cannot listen on {host}:{port}: {reason or error}") from None
    return sockets


def _addresses(host: str, port: int) -> list[tuple[int, int, int, str, tuple[str, int]]]:
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys(found))  # type: ignore[arg-type]  # TCP addresses: (host, port, …)


async def receive(sock: socket.socket, size: int) -> bytes:
    """At least one byte, or none at the end of the stream. Errors: OSError, ClosedResourceError.

    Always a checkpoint: a peer that sends without end would otherwise keep the loop to itself.
    """
    await trio.lowlevel.checkpoint()
    while (data := receive_nowait(sock, size)) is None:
        await trio.lowlevel.wait_readable(sock)
    return data


def receive_nowait(sock: socket.socket, size: int) -> bytes | None:
    """As `receive`, but None where nothing is there. Errors: OSError."""
    try:
        return sock.recv(size)
    except BlockingIOError:
        return None


async def send_all(sock: socket.socket, data: bytes) -> None:
    """Errors: OSError, ClosedResourceError."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[sock.send(rest) :]
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)


def unacknowledged_for(sock: socket.socket) -> float:
    """Seconds for which the peer's kernel has left our retransmissions or window probes unanswered.

    0 for a peer that answers them, however little its program reads.
    """
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_LAST_ACK + 4)
    except OSError:  # a pair of sockets, as in tests: their other end is in this machine
        return 0.0
    if not info[_TCP_INFO_RETRANSMITS] and not info[_TCP_INFO_PROBES]:
        return 0.0
    return int.from_bytes(info[_TCP_INFO_LAST_ACK:], sys.byteorder) / 1000


def close(sock: socket.socket) -> None:
    """Close, waking whoever waits for the socket."""
    if sock.fileno() != -1:
        trio.lowlevel.notify_closing(sock)
        sock.close()
