"""Non-blocking TCP sockets as the gateway uses them.

Plain sockets and trio's `wait_readable`, not `trio.SocketStream`: the outbox writes without a task
switch, and a connection that only listens holds a few hundred bytes of frames instead of thousands.
"""

import ctypes
import errno
import os
import resource
import socket
import struct
import sys
from typing import NamedTuple

import trio

BACKLOG = 4096
"""Handshakes the kernel queues (Linux's default somaxconn): a reconnect storm of a second or two."""

NOTSENT_LOWAT = 16 * 1024
"""Bytes, trio's own: a peer that does not read then absorbs 100 KB of kernel memory, not 4 MB."""

USER_TIMEOUT_MS = 180_000
"""Milliseconds until the kernel gives up a peer that acknowledges nothing, or reads nothing: the last
line (RFC 5482). Longer than heartbeats and circuit breakers, which tell a dead peer from a slow one.
"""

RESERVED_DESCRIPTORS = 100
"""Descriptors that no client gets: the stores, the bus, listeners and files need them."""

MIN_HTTP_CONNECTIONS = 8
"""Connections that the HTTP port gets however few descriptors there are: for probes and a scrape."""

ACCEPT_PAUSE = 1.0
"""Seconds to wait, and between two log lines, while there are no more descriptors."""

LINGER_TIMEOUT = 1.0
"""Seconds a refused client has to read the answer and close; closing at once could destroy it."""

LINGER_BYTES = 16 * 1024
"""Bytes read at once, and dropped, of what a refused client goes on sending."""

_OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

_BROKEN_LISTENER = {errno.EBADF, errno.EINVAL, errno.ENOTSOCK}
"""Errors that will not pass. The others are those of a peer that was gone before it was accepted
(accept(2)), which trio ignores as well.
"""

_TCP_INFO_STATE, _TCP_ESTABLISHED = 0, 1
"""Offset in Linux' `struct tcp_info`, and its value until either side has closed or reset."""

_TCP_INFO_RETRANSMITS, _TCP_INFO_PROBES, _TCP_INFO_LAST_ACK = 2, 3, 56
"""Offsets in Linux' `struct tcp_info`; the last one is in milliseconds, of four bytes."""

_SO_ATTACH_FILTER = 26
"""socket(7)."""

_DROP_SYN = (
    (0x30, 0, 0, 13),  # load the byte with TCP's flags (RFC 9293 §3.1)
    (0x54, 0, 0, 0x12),  # keep SYN and ACK
    (0x15, 0, 1, 0x02),  # SYN alone?
    (0x06, 0, 0, 0),  # drop it
    (0x06, 0, 0, 0xFFFFFFFF),  # else take it
)
"""A socket filter (bpf(4)): code, jump if true, jump if false, operand."""


class BindError(Exception):
    """An address cannot be listened on; the message says which and why."""


class OutOfResources(Exception):
    """No connection can be accepted for want of descriptors or memory; the message says which."""


class Room(NamedTuple):
    """Connections that the descriptors allow on each port."""

    streaming: int
    http: int


def allow_sockets(http_connections: int) -> Room:
    """Raise this process's limit of descriptors as far as it goes, and share them out.

    The HTTP port gets up to `http_connections`, which the streaming port can then not take, nor the
    other way round.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    spare = most // 2 - RESERVED_DESCRIPTORS
    http = max(MIN_HTTP_CONNECTIONS, min(http_connections, spare))
    return Room(max(most - RESERVED_DESCRIPTORS - http, most // 2), http)


def bind(host: str, port: int, setting: str, *, shared: bool = False) -> list[socket.socket]:
    """Listening sockets for `host`, one per address it has, all on one port. Errors: BindError, which
    names the `setting` that said so.

    `shared` ones do not listen yet, and others that are so may be bound to the same port: among those
    that listen the kernel spreads connections (socket(7), SO_REUSEPORT).

    The options are set here once: Linux hands them on to every accepted socket.
    """
    sockets: list[socket.socket] = []
    try:
        for family, _, _, _, address in _addresses(host, port):
            if sockets:
                address = address[0], sockets[0].getsockname()[1], *address[2:]  # noqa: PLW2901 (the same port for each)
            listener = (
                _bind_shared(family, address)
                if shared
                else socket.create_server(address, family=family, backlog=BACKLOG)
            )
            sockets.append(listener)
            listener.setblocking(False)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOTSENT_LOWAT)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
    except (OSError, OverflowError, UnicodeError) as error:  # the last: no name that DNS can have
        for listener in sockets:
            listener.close()
        raise BindError(f"{setting}: cannot listen on {host}:{port}: {_reason(error)}") from None
    return sockets


def _reason(error: Exception) -> str:
    """The system's own words: create_server adds the address to them once more."""
    if isinstance(error, socket.gaierror):  # whose numbers are not those of other errors
        return str(error.strerror)
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)


def reserve(host: str, port: int, setting: str) -> list[socket.socket]:
    """Sockets that hold a port, but never listen, for those who share it. Errors: BindError."""
    # Whoever shares its port would let us in without a word, but not if we do not share.
    alone = bind(host, port, setting)
    port = alone[0].getsockname()[1]
    for sock in alone:
        sock.close()
    return bind(host, port, setting, shared=True)


def _bind_shared(family: int, address: tuple[str, int]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family == socket.AF_INET6:  # as `create_server`: the other family has its own socket
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def _addresses(host: str, port: int) -> list[tuple[int, int, int, str, tuple[str, int]]]:
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys(found))  # type: ignore[arg-type]  # TCP addresses: (host, port, …)


def ignore_new(listener: socket.socket) -> None:
    """Let connections whose handshake has begun still come; of others drop the first packet.

    To close a listener resets what waits to be accepted, and handshakes under way. A first packet
    that was dropped comes again after a second (RFC 6298 §2), to whoever shares the port then.
    """
    instructions = ctypes.create_string_buffer(
        b"".join(struct.pack("HBBI", *each) for each in _DROP_SYN)
    )
    program = struct.pack("HL", len(_DROP_SYN), ctypes.addressof(instructions))
    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def accept_nowait(listener: socket.socket) -> tuple[socket.socket, str] | None:
    """Return the next connection that waits, and its client's address; None if there is none.

    Errors: OutOfResources; OSError, if the listener itself is broken.
    """
    while True:
        try:
            sock, (address, *_) = listener.accept()
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno in _OUT_OF_RESOURCES:
                raise OutOfResources(error.strerror) from None
            if error.errno in _BROKEN_LISTENER:
                raise
        else:
            sock.setblocking(False)
            return sock, address


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


async def send_last(sock: socket.socket, data: bytes) -> None:
    """Send the last that is sent, and read on until the peer has closed, for LINGER_TIMEOUT at most: to
    close at once could destroy what was sent. Errors: OSError, ClosedResourceError.
    """
    with trio.move_on_after(LINGER_TIMEOUT):
        await send_all(sock, data)
        sock.shutdown(socket.SHUT_WR)
        while await receive(sock, LINGER_BYTES):
            pass


def has_left(sock: socket.socket) -> bool:
    """Return whether the peer has closed or reset, even behind bytes that are not read yet."""
    try:
        state = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_STATE + 1)
    except OSError:  # closed
        return True
    return state[_TCP_INFO_STATE] != _TCP_ESTABLISHED


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
