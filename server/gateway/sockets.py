"""Non-blocking TCP sockets for both ports.

These are plain sockets with trio's `wait_readable`, not `trio.SocketStream`. So the outbox writes
without a task switch, and a connection that only listens holds a few hundred bytes, not thousands.
"""

import ctypes
import errno
import os
import resource
import socket
import struct
import sys
from typing import Any, NamedTuple

import trio

BACKLOG = 4096
"""TCP handshakes that the kernel queues (Linux's default somaxconn): one or two seconds of a storm."""

NOTSENT_LOWAT = 16 * 1024
"""Bytes, as in trio. A peer that does not read then takes 100 KB of kernel memory, not 4 MB."""

USER_TIMEOUT_MS = 180_000
"""Milliseconds until the kernel gives up a peer that acknowledges or reads nothing (RFC 5482). This is
longer than heartbeats and circuit breakers take, which tell a dead peer from a slow one.
"""

RESERVED_DESCRIPTORS = 100
"""Descriptors that are not for clients: stores, bus, listeners and files need them."""

MIN_HTTP_CONNECTIONS = 8
"""Connections that the HTTP port has at least, for probes and a scrape."""

ACCEPT_PAUSE = 1.0
"""Seconds between two tries to accept, and two log lines, while descriptors have run out."""

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
"""Offset of the state in Linux' `struct tcp_info`, and its value until either side has closed."""

_TCP_INFO_RETRANSMITS, _TCP_INFO_PROBES, _TCP_INFO_LAST_ACK = 2, 3, 56
"""Offsets in Linux' `struct tcp_info`. The last field has four bytes, in milliseconds."""

_SO_ATTACH_FILTER = 26
"""socket(7)."""

_DROP_SYN = (
    # Load the byte with TCP's flags (RFC 9293 §3.1), and keep SYN and ACK.
    (0x30, 0, 0, 13),
    (0x54, 0, 0, 0x12),
    # Drop a packet with SYN alone, take any other.
    (0x15, 0, 1, 0x02),
    (0x06, 0, 0, 0),
    (0x06, 0, 0, 0xFFFFFFFF),
)
"""A socket filter (bpf(4)): code, jump if true, jump if false, operand."""


class BindError(Exception):
    """The server cannot listen on an address. The message says on which, and why."""


class OutOfResources(Exception):
    """Descriptors or memory have run out, so no connection can be accepted. The message says which."""


class Room(NamedTuple):
    """The number of connections that the descriptors allow on each port."""

    streaming: int
    http: int


def allow_sockets(http_connections: int) -> Room:
    """Raise this process's limit of descriptors as far as possible, and divide them.

    The HTTP port gets up to `http_connections`. Neither port can take what the other one has.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    spare = most // 2 - RESERVED_DESCRIPTORS
    http = max(MIN_HTTP_CONNECTIONS, min(http_connections, spare))
    return Room(max(most - RESERVED_DESCRIPTORS - http, most // 2), http)


def bind(host: str, port: int, setting: str, *, shared: bool = False) -> list[socket.socket]:
    """Return listening sockets for `host`, one for each of its addresses, all on one port.

    `shared` sockets do not listen yet, and other processes may share their port: the kernel spreads
    connections among those that listen (socket(7), SO_REUSEPORT). Linux hands the options that are
    set here on to every accepted socket.

    Errors: BindError, which names the `setting` of the address.
    """
    sockets: list[socket.socket] = []
    try:
        for family, _, _, _, (ip, asked, *scope) in _addresses(host, port):
            # Each gets the port of the first.
            address = (ip, _port(sockets[0]) if sockets else asked, *scope)
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
    # UnicodeError: DNS cannot have such a name.
    except (OSError, OverflowError, UnicodeError) as error:
        for listener in sockets:
            listener.close()
        raise BindError(f"{setting}: cannot listen on {host}:{port}: {_reason(error)}") from None
    return sockets


def _reason(error: Exception) -> str:
    """Return the system's own words, to which `create_server` adds the address once more."""
    # The numbers of this error have other meanings.
    if isinstance(error, socket.gaierror):
        return str(error.strerror)
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)


def reserve(host: str, port: int, setting: str) -> list[socket.socket]:
    """Return sockets that keep a port for processes that share it, but do not listen.

    Errors: BindError.
    """
    # A foreign process that shares its port would let this one in. So first try without sharing.
    alone = bind(host, port, setting)
    port = _port(alone[0])
    for sock in alone:
        sock.close()
    return bind(host, port, setting, shared=True)


def _port(sock: socket.socket) -> int:
    _, port, *_ = sock.getsockname()
    return int(port)


def _bind_shared(family: int, address: tuple[Any, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        # As `create_server` does: IPv4 has its own socket.
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def _addresses(host: str, port: int) -> list[tuple[Any, ...]]:
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys(found))


def ignore_new(listener: socket.socket) -> None:
    """Drop the first packet of each new TCP handshake, and let those under way finish.

    To close a listener resets connections that wait to be accepted, and handshakes under way. A first
    packet that was dropped comes again after a second (RFC 6298 §2), to a process that then listens.
    """
    instructions = ctypes.create_string_buffer(
        b"".join(struct.pack("HBBI", *each) for each in _DROP_SYN)
    )
    program = struct.pack("HL", len(_DROP_SYN), ctypes.addressof(instructions))
    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def accept_nowait(listener: socket.socket) -> tuple[socket.socket, str] | None:
    """Return the next connection that waits, and its client's address; None if none waits.

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
    """Return at least one byte, or none at the end of the stream. Errors: OSError, ClosedResourceError.

    This always is a checkpoint, else a peer that sends without end would block the event loop.
    """
    await trio.lowlevel.checkpoint()
    while (data := receive_nowait(sock, size)) is None:
        await trio.lowlevel.wait_readable(sock)
    return data


def receive_nowait(sock: socket.socket, size: int) -> bytes | None:
    """Return as `receive` does, but None if there is nothing to read. Errors: OSError."""
    try:
        return sock.recv(size)
    except BlockingIOError:
        return None


async def send_all(sock: socket.socket, data: bytes) -> None:
    """Send all of `data`. Errors: OSError, ClosedResourceError."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[sock.send(rest) :]
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)


async def send_last(sock: socket.socket, data: bytes) -> None:
    """Send `data`, close this side, and read until the peer has closed, within LINGER_TIMEOUT.

    To close at once could destroy `data`. Errors: OSError, ClosedResourceError.
    """
    with trio.move_on_after(LINGER_TIMEOUT):
        await send_all(sock, data)
        sock.shutdown(socket.SHUT_WR)
        while await receive(sock, LINGER_BYTES):
            pass


def has_left(sock: socket.socket) -> bool:
    """Whether the peer has closed or reset, even if some of its bytes are not read yet."""
    try:
        state = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_STATE + 1)
    except OSError:
        return True
    return state[_TCP_INFO_STATE] != _TCP_ESTABLISHED


def unacknowledged_for(sock: socket.socket) -> float:
    """Return the seconds since the peer's kernel last answered retransmissions or window probes.

    0 for a peer that answers them, even if its program does not read.
    """
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_LAST_ACK + 4)
    except OSError:
        # A pair of sockets, as in tests.
        return 0.0
    if not info[_TCP_INFO_RETRANSMITS] and not info[_TCP_INFO_PROBES]:
        return 0.0
    return int.from_bytes(info[_TCP_INFO_LAST_ACK:], sys.byteorder) / 1000


def close(sock: socket.socket) -> None:
    """Close a socket, and wake the tasks that wait for it."""
    if sock.fileno() != -1:
        trio.lowlevel.notify_closing(sock)
        sock.close()
