"""A proxy that drops and reorders what a server says, message by message."""

import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Self

Meddle = Callable[[bytes], Iterable[bytes]]
"""Returns the payloads to pass on in place of one."""


class FrameProxy:
    """Forwards WebSocket connections, and calls `meddle` with each of the server's text messages."""

    def __init__(self, port: int, meddle: Meddle) -> None:
        self._target = port
        self._meddle = meddle
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"ws://127.0.0.1:{self._listener.getsockname()[1]}/ws/quotes"
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._listener, *self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [client, server]
                threading.Thread(target=self._commands, args=(client, server), daemon=True).start()
                threading.Thread(target=self._messages, args=(server, client), daemon=True).start()

    def _commands(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)

    def _messages(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError), server.makefile("rb") as stream:
            while (line := stream.readline()) not in (b"\r\n", b""):
                client.sendall(line)
            client.sendall(b"\r\n")
            while head := stream.read(2):
                # The server's frames are whole messages, not masked (RFC 6455 §5.2).
                length = head[1] if head[1] < 126 else 0
                extended = stream.read({126: 2, 127: 8}.get(head[1], 0))
                payload = stream.read(length or int.from_bytes(extended, "big"))
                if head[0] != 0x81:
                    client.sendall(head + extended + payload)
                    continue
                for each in self._meddle(payload):
                    client.sendall(_frame(each))
            client.shutdown(socket.SHUT_WR)


def _frame(payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes((0x81, size)) + payload
    if size < 65536:
        return bytes((0x81, 126)) + size.to_bytes(2, "big") + payload
    return bytes((0x81, 127)) + size.to_bytes(8, "big") + payload
