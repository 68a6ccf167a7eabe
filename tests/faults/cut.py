"""Cuts a connection as a pulled cable does: without FIN, RST or acknowledgement."""

import ctypes
import socket
import struct

SO_ATTACH_FILTER = 26
"""Linux's number of the option (socket(7))."""


def cut(sock: socket.socket) -> None:
    """Let the kernel drop each packet for `sock` before TCP sees it."""
    drop_all = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF: return 0
    program = struct.pack("HL", 1, ctypes.addressof(drop_all))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
