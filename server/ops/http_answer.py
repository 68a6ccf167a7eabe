"""One request as an ASGI application sees it, and its answer, which h11 writes as HTTP/1.1."""

from collections.abc import Awaitable, Callable
from email.utils import formatdate
from urllib.parse import unquote

import h11
import trio
from starlette.types import Message, Scope

from server.ops.http_request import IncomingRequest

BODILESS = (204, 304)
"""Statuses whose answer has no body (RFC 9110 §6.4.1). Neither has the answer to HEAD."""

CLOSE = (b"connection", b"close")


class Answer:
    """The answer to `request`. `receive` and `send` are the application's.

    Arguments:
        write: sends bytes to the client. It returns, too, if the client is gone.
        is_last: whether this is the connection's last answer, which then says so (RFC 9112 §9.6).
    """

    def __init__(
        self,
        request: IncomingRequest,
        write: Callable[[bytes], Awaitable[None]],
        is_last: Callable[[], bool],
    ) -> None:
        self._request = request
        self._connection = request.connection
        self._write = write
        self._is_last = is_last
        self._start: Message = {"status": 500, "headers": []}
        self._received = False

    def scope(self, client: str) -> Scope:
        """Return the request of a client at this address."""
        path, _, query = self._request.path.partition(b"?")
        return {
            "type": "http",
            "asgi": {"spec_version": "2.1", "version": "3.0"},
            "http_version": self._request.event.http_version.decode(),
            "method": self._request.event.method.decode(),
            "scheme": "http",
            "path": unquote(path.decode()),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": self._request.headers,
            "client": (client, 0),
            "server": None,
        }

    async def receive(self) -> Message:
        """Return the body; then wait, as nothing else comes."""
        if self._received:
            await trio.sleep_forever()
        self._received = True
        return {"type": "http.request", "body": bytes(self._request.body), "more_body": False}

    async def send(self, message: Message) -> None:
        """Send a part. The head waits for the first part of the body, and shares a write with it."""
        if message["type"] == "http.response.start":
            self._start = message
            return
        status, parts = self._start["status"], list[bytes | None]()
        if self._connection.our_state is h11.SEND_RESPONSE:
            headers = [*self._start["headers"], (b"date", formatdate(usegmt=True).encode())]
            if self._is_last():
                headers.append(CLOSE)
            parts.append(self._connection.send(h11.Response(status_code=status, headers=headers)))
        if self._request.event.method != b"HEAD" and status not in BODILESS:
            parts.append(self._connection.send(h11.Data(data=message.get("body", b""))))
        if not message.get("more_body", False):
            parts.append(self._connection.send(h11.EndOfMessage()))
        await self._write(b"".join(part for part in parts if part))

    async def finish(self) -> bool:
        """Answer 500 if the application answered nothing. Return whether a next request may come."""
        if self._connection.our_state is h11.SEND_RESPONSE:
            self._start = {"status": 500, "headers": [(b"content-length", b"0"), CLOSE]}
            await self.send({"type": "http.response.body"})
        return self._connection.states == {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}
