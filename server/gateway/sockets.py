"""Non-blocking TCP sockets for both ports.

These are plain sockets with trio's `wait_readable`, not `trio.SocketStream`. So the outbox writes
without a task switch. A connection that only listens holds a few hundred bytes instead of thousands.
"""

import ctypes
import errno
import fcntl
import socket
import struct
import sys
import termios
from typing import NamedTuple

import trio

ACCEPT_PAUSE = 1.0
"""Seconds between two tries to accept, and two log lines, while descriptors have run out."""

LINGER_TIMEOUT = 1.0
"""Seconds for a refused client to read the answer and close. To close at once could destroy the answer.
"""

LINGER_BYTES = 16 * 1024
"""Bytes read at once, and dropped, of what a refused client goes on sending."""

_OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

_BROKEN_LISTENER = {errno.EBADF, errno.EINVAL, errno.ENOTSOCK}
"""Errors that last. All others mean that a peer left before it was accepted (accept(2)); trio ignores
these as well.
"""

_TCP_INFO_STATE, _TCP_ESTABLISHED = 0, 1
"""Offset of the state in Linux' `struct tcp_info`, and its value until either side has closed."""

_TCP_INFO_RETRANSMITS, _TCP_INFO_PROBES, _TCP_INFO_LAST_ACK = 2, 3, 56
"""Offsets in Linux' `struct tcp_info`. The last field has four bytes, in milliseconds."""

_TCP_INFO_RTT, _TCP_INFO_BYTES_ACKED = 68, 120
"""Offsets in Linux' `struct tcp_info`: four bytes in microseconds, and eight bytes."""

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


class OutOfResources(Exception):
    """Descriptors or memory have run out, so no connection can be accepted. The message says which."""


def ignore_new(listener: socket.socket) -> None:
    """Drop the first packet of each new TCP handshake, and let handshakes that have begun finish.

    To close a listener resets waiting connections and handshakes that have begun. A client sends a
    dropped packet again after a second (RFC 6298 §2), and reaches a process that listens then.
    """
    instructions = ctypes.create_string_buffer(
        b"".join(struct.pack("HBBI", *each) for each in _DROP_SYN)
    )
    program = struct.pack("HL", len(_DROP_SYN), ctypes.addressof(instructions))
    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def accept_nowait(listener: socket.socket) -> tuple[socket.socket, str] | None:
    """Return the next waiting connection and its client's address; None if none waits.

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

    This is always a checkpoint. Otherwise a peer that sends without end would block the event loop.
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


class PeerNumbers(NamedTuple):
    """The kernel's numbers of a connection.

    `waiting`: bytes that the peer's kernel has not acknowledged. `acknowledged`: those that it has.
    `round_trip` is in seconds.
    """

    waiting: int
    acknowledged: int
    round_trip: float


def peer_numbers(sock: socket.socket) -> PeerNumbers | None:
    """Return what the kernel knows of a TCP connection, None if it is over or not TCP."""
    size = _TCP_INFO_BYTES_ACKED + 8
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, size)
        waiting = fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4))
    except (OSError, ValueError):
        return None
    if len(info) < size:
        return None
    (round_trip,) = struct.unpack_from("=I", info, _TCP_INFO_RTT)
    (acknowledged,) = struct.unpack_from("=Q", info, _TCP_INFO_BYTES_ACKED)
    return PeerNumbers(int.from_bytes(waiting, sys.byteorder), acknowledged, round_trip / 1e6)


def peer_address(sock: socket.socket) -> str:
    """Return the peer's address, empty if the connection is over or has none."""
    try:
        name = sock.getpeername()
    except OSError:
        return ""
    return str(name[0]) if name else ""


def close(sock: socket.socket) -> None:
    """Close a socket, and wake the tasks that wait for it."""
    if sock.fileno() != -1:
        trio.lowlevel.notify_closing(sock)
        sock.close()
