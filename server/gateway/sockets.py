"""Non-blocking TCP sockets as the gateway uses them.

Plain sockets and trio's `wait_readable`, not `trio.SocketStream`: the outbox writes without a task
switch, and a connection that only listens holds a few hundred bytes of frames instead of thousands.
"""

import ctypes
import errno
import socket
import struct
import sys

import trio

ACCEPT_PAUSE = 1.0
"""Seconds to wait, and between two log lines, while there are no more descriptors."""

OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

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
