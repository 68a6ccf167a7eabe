"""A TCP proxy between the server and its database or cache, which stalls and cuts connections."""

import socket
import threading
from contextlib import suppress
from typing import Self


class Proxy:
    """Forwards connections to a port of this machine, each by two threads."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._flowing = threading.Event()
        self._flowing.set()
        self._sockets: list[socket.socket] = []
        self._mute: set[socket.socket] = set()
        self._marker = b""

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._flowing.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def stall(self) -> None:
        """Receive everything, and pass nothing on."""
        self._flowing.clear()

    def mute_oldest(self) -> None:
        """Pass nothing on that the server of the oldest connection sends."""
        self._mute.add(self._sockets[1])

    def lose_answers(self, marker: bytes) -> None:
        """End each connection that sends `marker`, behind that and before an answer; b"" ends this."""
        self._marker = marker

    def flow(self) -> None:
        """Pass everything on again."""
        self._flowing.set()

    def cut(self) -> None:
        """End every connection."""
        sockets, self._sockets = self._sockets, []
        for each in sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._target))
                except OSError:
                    client.close()
                    continue
                self._sockets += [client, server]
                for ends in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._pump, args=ends, daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, asks: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._flowing.wait()
                loses = asks and self._marker and self._marker in data
                if loses:
                    self._mute.add(target)
                if source not in self._mute:
                    target.sendall(data)
                if loses:
                    source.shutdown(socket.SHUT_RDWR)
            target.shutdown(socket.SHUT_WR)
