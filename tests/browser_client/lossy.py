"""A proxy between a client and a server that loses some of the server's messages."""

import socket
import threading
from contextlib import suppress
from typing import Self

from tests.frames import take_frame

TEXT, BINARY = 1, 2


class LossyProxy:
    """Forwards connections to `address`. While `losing`, it drops each third message of the server."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._messages = 0
        self.losing = False

    @property
    def url(self) -> str:
        """Where clients connect to."""
        return f"ws://127.0.0.1:{self._listener.getsockname()[1]}/ws/quotes"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in [self._listener, *self._sockets]:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._address)
                self._sockets += [client, server]
                threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
                threading.Thread(target=self._lose, args=(server, client), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)

    def _lose(self, server: socket.socket, client: socket.socket) -> None:
        """Pass the answer to the handshake on, and then frames but for the lost ones."""
        rest = b""
        with suppress(OSError):
            while b"\r\n\r\n" not in rest and (data := server.recv(65536)):
                rest += data
            head, _, rest = rest.partition(b"\r\n\r\n")
            client.sendall(head + b"\r\n\r\n")
            while True:
                while frame := take_frame(rest):
                    kind, _, left = frame
                    if not self._is_lost(kind & 0x0F):
                        client.sendall(rest[: len(rest) - len(left)])
                    rest = left
                if not (data := server.recv(65536)):
                    return
                rest += data

    def _is_lost(self, opcode: int) -> bool:
        if not self.losing or opcode not in (TEXT, BINARY):
            return False
        self._messages += 1
        return self._messages % 3 == 0
