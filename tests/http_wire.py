"""Reads HTTP/1.1 answers strictly, and sends what no well-behaved client sends."""

import json
import re
import select
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5]\d\d) ([\t -~]*)")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[\t ]*([\t -~]*?)[\t ]*")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})(;[\t -~]*)?")
_LENGTH = re.compile(r"\d{1,12}")

WITHOUT_BODY = {204, 304}
"""Statuses whose answers end with their heads (RFC 9112 §6.3)."""

READ_SIZE = 256 * 1024


class BadAnswer(Exception):
    """The server sent bytes that are not an HTTP/1.1 answer; the message says why."""


class HttpAnswer(NamedTuple):
    """One answer.

    The names of `headers` are in lower case. `body` is None if the answer has none, as after HEAD.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes | None

    @property
    def is_last(self) -> bool:
        """Whether the server says that it closes the connection after this answer."""
        return "close" in self.headers.get("connection", "").lower()

    @property
    def code(self) -> str:
        """The code of an error, "" for other answers. Errors: BadAnswer if the error has another
        shape.
        """
        if self.status < 400 or self.body is None or b'"unready"' in self.body:
            return ""
        if self.headers.get("content-type") != "application/json":
            raise BadAnswer(f"an error's type is {self.headers.get('content-type')}: {self}")
        return _error_code(self.body)

    @property
    def verdict(self) -> tuple[int, str]:
        """Status and error code."""
        return self.status, self.code


def _error_code(body: bytes) -> str:
    try:
        document = json.loads(body)
    except ValueError:
        raise BadAnswer(f"an error's body is not JSON: {body[:200]!r}") from None
    match document:
        case {"error": {"code": str(code), "message": str(message), **more}, **others}:
            if code and message and not more and not others:
                return code
    raise BadAnswer(f"an error's body has another shape: {body[:200]!r}")


def take_answer(data: bytes, method: str = "GET") -> tuple[HttpAnswer, bytes] | None:
    """Return the first answer, to a request of `method`, and the bytes that follow.

    Return None if the answer is not whole yet. Errors: BadAnswer.
    """
    head, end, rest = data.partition(b"\r\n\r\n")
    if not end:
        if len(data) > READ_SIZE or not _could_be_head(data):
            raise BadAnswer(f"not an answer's head: {data[:200]!r}")
        return None
    first, *lines = head.split(b"\r\n")
    status_line = _STATUS_LINE.fullmatch(first)
    if not status_line:
        raise BadAnswer(f"not a status line: {first[:200]!r}")
    status, headers = int(status_line[1]), _parse_fields(lines)
    if status < 200 or status in WITHOUT_BODY or method == "HEAD":
        return HttpAnswer(status, headers, None), rest
    body = _take_body(headers, rest)
    return None if body is None else (HttpAnswer(status, headers, body[0]), body[1])


def _could_be_head(data: bytes) -> bool:
    beginning = b"HTTP/1.1 "
    return data[: len(beginning)] == beginning[: len(data)]


def _parse_fields(lines: Sequence[bytes]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        found = _FIELD.fullmatch(line)
        if not found:
            raise BadAnswer(f"not a header: {line[:200]!r}")
        name, value = found[1].decode().lower(), found[2].decode()
        if name in headers and name in ("content-length", "transfer-encoding", "content-type"):
            raise BadAnswer(f"two headers {name}")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _take_body(headers: Mapping[str, str], data: bytes) -> tuple[bytes, bytes] | None:
    length, coding = headers.get("content-length"), headers.get("transfer-encoding")
    if (length is None) == (coding is None):
        raise BadAnswer(f"the body's end is not told, or twice: {dict(headers)}")
    if coding is not None:
        if coding.lower() != "chunked":
            raise BadAnswer(f"transfer coding {coding}")
        return _take_chunks(data)
    if not _LENGTH.fullmatch(str(length)):
        raise BadAnswer(f"Content-Length: {length}")
    size = int(str(length))
    return (data[:size], data[size:]) if len(data) >= size else None


def _take_chunks(data: bytes) -> tuple[bytes, bytes] | None:
    body = []
    while True:
        line, end, data = data.partition(b"\r\n")
        if not end:
            return None
        found = _CHUNK.fullmatch(line)
        if not found:
            raise BadAnswer(f"not a chunk's size: {line[:200]!r}")
        size = int(found[1], 16)
        if len(data) < size + 2:
            return None
        if data[size : size + 2] != b"\r\n":
            raise BadAnswer("a chunk does not end where it should")
        body.append(data[:size])
        data = data[size + 2 :]
        if not size:
            return b"".join(body), data


class AnswerReader:
    """Takes final answers from received bytes: first those to `methods`, then those to GET requests."""

    def __init__(self, *methods: str) -> None:
        self.answers: list[HttpAnswer] = []
        self._methods = methods
        self._data = b""

    def feed(self, data: bytes) -> None:
        """Take more bytes. Errors: BadAnswer, also for an answer after the one that said it was the
        last.
        """
        self._data += data
        while self._data:
            number = len(self.answers)
            method = self._methods[number] if number < len(self._methods) else "GET"
            taken = take_answer(self._data, method)
            if taken is None:
                return
            answer, self._data = taken
            if self.answers and self.answers[-1].is_last:
                raise BadAnswer(f"an answer after the last: {answer}")
            if answer.status >= 200:
                self.answers.append(answer)

    def end(self) -> None:
        """Note that the server has ended the connection. Errors: BadAnswer for half an answer."""
        if self._data:
            raise BadAnswer(f"half an answer: {self._data[:200]!r}")


class Exchange(NamedTuple):
    """The received bytes, whether the server `ended` the connection, and after how many `seconds`."""

    received: bytes
    ended: bool
    seconds: float

    def answers(self) -> list[HttpAnswer]:
        """Return the final answers, to requests whose answers have bodies. Errors: BadAnswer."""
        reader = AnswerReader()
        reader.feed(self.received)
        if self.ended:
            reader.end()
        return reader.answers


def exchange(address: tuple[str, int], data: bytes, *, timeout: float = 5.0) -> Exchange:
    """Send `data` and read at the same time, until the server ends the connection.

    Stop after `timeout` seconds.
    """
    start = time.monotonic()
    received, unsent = bytearray(), memoryview(data)
    with socket.create_connection(address, timeout) as sock:
        sock.setblocking(False)
        while (elapsed := time.monotonic() - start) < timeout:
            wait(sock, select.POLLIN | (select.POLLOUT if unsent else 0), timeout - elapsed)
            try:
                unsent = unsent[_send(sock, unsent) :]
                part = _receive(sock)
            except OSError:  # reset, perhaps with an answer before it
                received += _receive_last(sock)
                part = b""
            received += part or b""
            if part == b"":
                return Exchange(bytes(received), True, time.monotonic() - start)
    return Exchange(bytes(received), False, time.monotonic() - start)


def wait(sock: socket.socket, events: int, timeout: float) -> None:
    """Wait until the socket is ready for one of `events`, or has failed, or for `timeout` seconds."""
    poll = select.poll()
    poll.register(sock, events)
    poll.poll(max(0.0, timeout) * 1000)


def _send(sock: socket.socket, data: memoryview) -> int:
    try:
        return sock.send(data[:65536]) if data else 0
    except BlockingIOError:
        return 0


def _receive(sock: socket.socket) -> bytes | None:
    try:
        return sock.recv(READ_SIZE)
    except BlockingIOError:
        return None


def _receive_last(sock: socket.socket) -> bytes:
    try:
        return sock.recv(READ_SIZE)
    except OSError:
        return b""


def reset(sock: socket.socket) -> None:
    """Close with a RST, as the host of a process does that died."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def request(
    target: str = "/healthz", method: str = "GET", body: bytes = b"", **headers: Any
) -> bytes:
    """Return a well-formed request. Header names are given with `_` for `-`; None leaves one out."""
    fields = {"Host": "localhost", "Content_Length": len(body) or None} | headers
    lines = [f"{method} {target} HTTP/1.1"]
    lines += [f"{k.replace('_', '-')}: {v}" for k, v in fields.items() if v is not None]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
