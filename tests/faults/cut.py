"""Cuts a connection as a pulled cable does: no FIN, no RST, no acknowledgement, ever."""

import ctypes
import socket
import struct

SO_ATTACH_FILTER = 26
"""Linux, socket(7)."""


def cut(sock: socket.socket) -> None:
    """Let the kernel drop whatever arrives for `sock`, before TCP sees it."""
    drop_all = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF: return 0
    program = struct.pack("HL", 1, ctypes.addressof(drop_all))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
