"""Helpers of the gateway's tests: refusals, raw requests and frames, a client that applies patches."""

import json
import socket
import struct
import zlib
from collections.abc import Mapping
from contextlib import suppress
from itertools import count
from typing import Any, NamedTuple, Self

import jsonpatch
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.frames import take_frame
from tests.patient import PatientConnection
from tests.processes import TIMEOUT, ServerProcess, make_token

REFUSAL_TIMEOUT = 4.0
"""Seconds in which a request is refused: fewer than the five after which a handshake is given up."""

END_TIMEOUT = 10.0
"""Seconds in which the server ends a connection that it gives up."""

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
"""The example of RFC 6455 §1.3."""

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

_user_numbers = count()


def new_user() -> str:
    """Return a user of its own, so that no test waits for another's places."""
    return f"user{next(_user_numbers)}"


class Answer(NamedTuple):
    """An HTTP response; `error` is a refusal's body, checked for its shape."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, str]:
        """Return code and message; the body must be exactly the protocol's."""
        assert self.headers["Content-Type"] == "application/json"
        body = json.loads(self.body)
        assert set(body) == {"error"}
        assert set(body["error"]) == {"code", "message"}
        assert isinstance(body["error"]["message"], str)
        assert body["error"]["message"]
        error: dict[str, str] = body["error"]
        return error

    @property
    def verdict(self) -> tuple[int, str]:
        """Return status and error code."""
        return self.status, self.error["code"]


def refusal(url: str, **options: Any) -> Answer:
    """Return the refusal of a connection."""
    options = {"open_timeout": TIMEOUT, **options}
    with pytest.raises(InvalidStatus) as refused, connect(url, **options):
        pass
    response = refused.value.response
    return Answer(response.status_code, response.headers, bytes(response.body))


def head(target: str, method: str = "GET", **headers: str | None) -> bytes:
    """Return an opening handshake. In a header's name `_` stands for `-`; None leaves one out."""
    fields: dict[str, str | None] = {
        "Host": "localhost",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec_WebSocket_Key": KEY,
        "Sec_WebSocket_Version": "13",
    }
    fields |= headers
    lines = [f"{method} {target} HTTP/1.1"]
    lines += [f"{k.replace('_', '-')}: {v}" for k, v in fields.items() if v is not None]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def target(symbols: str | None = None, token: str | None = None) -> str:
    """Return the path and query of a good request, as a user of its own."""
    parts = [f"symbols={symbols}"] if symbols is not None else []
    parts.append(f"token={make_token(new_user()) if token is None else token}")
    return f"/ws/quotes?{'&'.join(parts)}"


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, mask: bool = True) -> bytes:
    """Return a client's frame. Bits beyond the opcode's four, such as 0x40, are reserved ones."""
    first, masked = opcode | (0x80 if fin else 0), 0x80 if mask else 0
    size = len(payload)
    if size < 126:
        start = struct.pack("!BB", first, masked | size)
    elif size < 65536:
        start = struct.pack("!BBH", first, masked | 126, size)
    else:
        start = struct.pack("!BBQ", first, masked | 127, size)
    if not mask:
        return start + payload
    key = b"\x11\x22\x33\x44"
    return start + key + bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))


def close(code: int, reason: bytes = b"") -> bytes:
    """Return a client's close frame."""
    return frame(CLOSE, struct.pack("!H", code) + reason)


class RawClient:
    """A socket to the streaming port, for bytes that no proper client sends."""

    def __init__(self, server: ServerProcess, request: bytes | None = None) -> None:
        """Send `request`, by default a handshake without symbols."""
        self.socket = socket.create_connection(server.address, END_TIMEOUT)
        self.received = b""
        self.send(head(target()) if request is None else request)
        if request is None:
            assert self.read_head().startswith("HTTP/1.1 101 ")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *data: bytes) -> None:
        """Send all at once."""
        self.socket.sendall(b"".join(data))

    def vanish(self) -> None:
        """Reset the connection, as the host of a process that died."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def is_over(self) -> bool:
        """Read what is left, and return whether the server then ended the connection in time."""
        try:
            while data := self.socket.recv(65536):
                self.received += data
        except ConnectionResetError:
            pass
        except TimeoutError:
            return False
        return True

    def read_head(self) -> str:
        """Return status line and headers."""
        while b"\r\n\r\n" not in self.received:
            self._receive()
        answer, _, self.received = self.received.partition(b"\r\n\r\n")
        return answer.decode("latin-1")

    def answer(self) -> Answer:
        """Return the refusal, read up to the connection's end."""
        self.socket.settimeout(REFUSAL_TIMEOUT)
        assert self.is_over(), "the connection goes on"
        assert self.received, "the connection ended without an answer"
        status, *lines = self.read_head().split("\r\n")
        headers = {name.title(): value for name, value in (line.split(": ", 1) for line in lines)}
        return Answer(int(status.split()[1]), headers, self.received)

    def read_frame(self) -> tuple[int, bytes]:
        """Return opcode and payload of the next frame, which is whole, plain and unmasked."""
        first, payload = self.take_frame()
        assert first & 0xF0 == 0x80
        return first & 0x0F, payload

    def take_frame(self) -> tuple[int, bytes]:
        """Return first byte and payload of the next frame that does not tell of an overload.

        The server says in a `status` message that the machine is busy. Other tests cause that.
        """
        while True:
            while (taken := take_frame(self.received)) is None:
                self._receive()
            first, payload, self.received = taken
            if not tells_of_overload(first, payload):
                return first, payload

    def read_message(self) -> dict[str, Any]:
        """Return the next text frame, without pings."""
        while (read := self.read_frame())[0] == PING:
            pass
        opcode, payload = read
        assert opcode == TEXT, payload
        message: dict[str, Any] = json.loads(payload)
        return message

    def read_closing(self) -> int | None:
        """Return the code of the close frame that follows the messages; None if it has none."""
        while True:
            opcode, payload = self.read_frame()
            if opcode == CLOSE:
                return int.from_bytes(payload[:2]) if payload else None

    def _receive(self) -> None:
        data = self.socket.recv(65536)
        assert data, "the server ended the connection"
        self.received += data


class Client:
    """An independent client; `quotes` are the result of the patches that it has read."""

    def __init__(
        self, server: ServerProcess, symbols: str | None = None, *, token: str = "", **options: Any
    ) -> None:
        url = server.url(symbols, token or make_token(new_user()))
        # Without a limit of messages to read: a close would wait behind them.
        # Without pings of its own: on a busy machine it would itself be late for the answers.
        options = {"open_timeout": TIMEOUT, "ping_interval": None, "max_queue": None, **options}
        self._connecting = connect(url, create_connection=PatientConnection, **options)
        self.connection = self._connecting.__enter__()
        self.document: dict[str, Any] = {"quotes": {}}
        self.versions: dict[str, int] = {}
        self.hears_of_overload = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connecting.__exit__(None, None, None)

    @property
    def quotes(self) -> dict[str, Any]:
        """Return quotes by symbol."""
        quotes: dict[str, Any] = self.document["quotes"]
        return quotes

    def send(self, action: str, **fields: Any) -> None:
        """Send a command."""
        self.connection.send(json.dumps({"action": action, **fields}))

    def receive(self) -> dict[str, Any]:
        """Return the next message, after applying it. Messages about an overload are left out."""
        message: dict[str, Any] = json.loads(self.connection.recv(TIMEOUT))
        while is_overload(message) and not self.hears_of_overload:
            message = json.loads(self.connection.recv(TIMEOUT))
        if message["type"] == "quotes_patch":
            self._apply(message)
        return message

    def answer(self) -> dict[str, Any]:
        """Return the next message that is not a price's move."""
        while is_move(message := self.receive()):
            pass
        return message

    def move(self) -> dict[str, Any]:
        """Return the next message, which must be a price's move."""
        message = self.receive()
        assert is_move(message), message
        return message

    def ask(self, action: str, **fields: Any) -> dict[str, Any]:
        """Send a command, and return the first answer to it. Quotes and statuses may come before."""
        self.send(action, **fields)
        while (message := self.receive())["type"] in ("quotes_patch", "status"):
            pass
        return message

    def read_to_end(self) -> tuple[int, list[dict[str, Any]]]:
        """Return the code with which the server closes, and all messages before that."""
        messages = []
        with suppress(ConnectionClosed):
            while True:
                messages.append(self.receive())
        received = self.connection.protocol.close_rcvd
        assert received is not None, "the connection ended without a close frame"
        return received.code, messages

    def is_answered(self) -> bool:
        """Return whether the connection goes on."""
        self.send("ping", id="still there?")
        # Moves, full quotes after a large snapshot, and word of an overload come before.
        while (answer := self.receive())["type"] in ("quotes_patch", "status"):
            pass
        return (answer["type"], answer["id"]) == ("pong", "still there?")

    def _apply(self, message: dict[str, Any]) -> None:
        jsonpatch.apply_patch(self.document, message["operations"], in_place=True)
        for symbol, version in message["versions"].items():
            if is_move(message):
                assert version == self.versions[symbol] + 1
            self.versions[symbol] = version


def tells_of_overload(first: int, payload: bytes) -> bool:
    """Return whether a frame is the `status` message of a server on a busy machine."""
    if first & 0x0F != TEXT:
        return False
    if first & 0x40:  # compressed (RFC 7692 §7.2.2)
        payload = zlib.decompressobj(-15).decompress(payload + b"\x00\x00\xff\xff")
    return is_overload(json.loads(payload))


def is_overload(message: dict[str, Any]) -> bool:
    """Return whether a message tells that every price comes less often, as the machine is busy."""
    return message["type"] == "status" and "interval" in message


def is_move(message: dict[str, Any]) -> bool:
    """Return whether a message only replaces fields of quotes."""
    operations = message.get("operations", [{"op": "none"}])
    return {operation["op"] for operation in operations} == {"replace"}


def paths(message: dict[str, Any], kind: str) -> list[str]:
    """Return the paths of a patch, whose operations must all be of one `kind`."""
    assert message["type"] == "quotes_patch", message
    assert {operation["op"] for operation in message["operations"]} == {kind}
    return [operation["path"] for operation in message["operations"]]
