"""A client that checks the protocol's promises with each message, and reads only when told to."""

import socket
import struct
import zlib
from contextlib import suppress
from copy import deepcopy
from typing import Any

import msgspec

from tests.forms import FormDocument
from tests.frames import take_frame
from tests.gateway.wire import BINARY, CLOSE, PING, PONG, TEXT, frame, head
from tests.gateway.wire import close as close_frame

TOO_SLOW = 4429

RECEIVE_BUFFER = 4096
"""Bytes of a buffer that a few updates fill, so that the server notices a stalled client."""


class ModelClient:
    """A client of the model.

    `subscribed` are the symbols that the server has acknowledged. `unanswered` is the number of
    waiting commands. `gone`: the server's circuit breaker has closed the connection. `before` is
    the connection whose quotes this one continues.
    """

    def __init__(
        self,
        address: Any,
        user: str,
        token: str,
        symbols: list[str],
        *,
        deflate: bool,
        form: str = "json",
        fields: str = "",
        before: "ModelClient | None" = None,
    ) -> None:
        self.user = user
        self.stalled = False
        self.subscribed: set[str] = set(symbols)
        if before:
            form, fields = before.form, before.fields
        self.form: str = form
        self.fields: str = fields
        self.state: FormDocument = deepcopy(before.state) if before else FormDocument(form, fields)
        self.state.schema = []
        self.unanswered = 0
        self.gone = False
        self._sock = socket.socket()
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        self._sock.settimeout(10)
        self._sock.connect(address)
        target = f"/ws/quotes?token={token}"
        target += f"&symbols={','.join(symbols)}" if symbols else ""
        target += f"&format={form}" + (f"&fields={fields}" if fields else "")
        target += f"&resume={self.state.position()}" if self.state.epoch else ""
        extension = "permessage-deflate" if deflate else None
        self._sock.sendall(head(target, Sec_WebSocket_Extensions=extension))
        self._received = b""
        while b"\r\n\r\n" not in self._received:
            self._received += self._sock.recv(4096)
        answer, _, self._received = self._received.partition(b"\r\n\r\n")
        self.status = int(answer.split()[1])
        if self.status == 101:
            self._sock.setblocking(False)
        else:
            self._sock.close()

    def symbols(self, everything: list[str]) -> list[str]:
        """The quotes that the client must have once all is quiet."""
        return everything if "*" in self.subscribed else sorted(self.subscribed)

    def send(self, action: str, **fields: Any) -> None:
        """Send a command, and a ping behind it by which its answers are counted."""
        encode = msgspec.msgpack.encode if self.form == "msgpack" else msgspec.json.encode
        kind = BINARY if self.form == "msgpack" else TEXT
        command, ping = encode({"action": action, **fields}), encode({"action": "ping"})
        with suppress(
            BlockingIOError, ConnectionError
        ):  # the server takes no commands of a client that does not read
            self._sock.send(frame(kind, command) + frame(kind, ping))
            self.unanswered += 1 + (action == "ping")

    def read(self) -> None:
        """Read everything that has come."""
        try:
            while data := self._sock.recv(65536):
                self._received += data
            self.gone = True
        except ConnectionResetError:
            self.gone = True
        except BlockingIOError:
            pass
        while taken := take_frame(self._received):
            first, payload, self._received = taken
            self._on_frame(first, payload)

    def close(self) -> None:
        """Close as a browser does, without waiting."""
        with suppress(OSError):
            self._sock.send(close_frame(1000))
        self._sock.close()

    def vanish(self) -> None:
        """Let the kernel end the connection."""
        self._sock.close()

    def reset(self) -> None:
        """Reset the connection, as the host of a process does that died."""
        with suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()

    def _on_frame(self, first: int, payload: bytes) -> None:
        assert first & 0x80
        if first & 0x40:
            payload = zlib.decompressobj(-15).decompress(payload + b"\x00\x00\xff\xff")
        if first & 0xF == PING:
            with suppress(BlockingIOError):
                self._sock.send(frame(PONG, payload))
            return
        if first & 0xF == CLOSE:
            assert int.from_bytes(payload[:2]) == TOO_SLOW, payload
            self.gone = True
            return
        held = {**self.state.versions}
        message = self.state.read(first & 0xF, payload)
        if isinstance(message, list):
            assert message[0] != "s" or self.state.epoch == message[1]
            return
        match message["type"]:
            case "pong":
                self.unanswered -= 1
            case "ack":
                self._on_ack(message["action"], set(message["symbols"]))
            case "quotes_patch":
                kinds = {operation["op"] for operation in message["operations"]}
                assert len(kinds) == 1
                assert ("epoch" in message) == (kinds == {"add"})
                for symbol, version in message["versions"].items():
                    assert version >= held.get(symbol, 0), "a version goes back"

    def _on_ack(self, action: str, symbols: set[str]) -> None:
        if action == "subscribe":
            self.subscribed = (
                {"*"} if "*" in self.subscribed | symbols else self.subscribed | symbols
            )
        elif action == "unsubscribe":
            self.subscribed = set() if "*" in symbols else self.subscribed - symbols
