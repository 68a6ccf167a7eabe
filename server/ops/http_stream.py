"""One connection of the HTTP port: a stream that passes only valid requests to Hypercorn.

A request goes on when its head is here. So the application can refuse it before its body comes, and
asks for the body after that.

Hypercorn reads a request, lets the application answer it, and reads the next. This stream passes on the
next request only after the last one was answered. So a client that pipelines a thousand requests takes
turns with the others. When it leaves, its remaining requests never start.
"""

import math
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import h11
import trio

from server.gateway.refusals import Refusal, Refused, response
from server.gateway.request import NotHttp, take_head
from server.gateway.sockets import (
    LINGER_BYTES,
    LINGER_TIMEOUT,
    close,
    has_left,
    peer_numbers,
    receive,
    receive_nowait,
    send_all,
    send_last,
)
from server.ops.http_library import WorkerContext
from server.ops.http_request import MAX_HEAD, IncomingRequest

KEEP_ALIVE_TIMEOUT = 15.0
"""Seconds for which an idle connection is kept: a scrape interval."""

REQUEST_TIMEOUT = 10.0
"""Seconds for a request's head, and for MIN_PROGRESS bytes of its body, or the rest of it. The time in
which it waits for its turn does not count.
"""

WRITE_TIMEOUT = 10.0
"""Seconds for a client to take MIN_PROGRESS bytes of an answer, or the rest of it."""

MIN_PROGRESS = 8 * 1024
"""Bytes: fewer than a phone at the edge of its network moves (2 KB a second). If one deadline counted
for a whole file of 200 KB, that phone would never get it.
"""

LOOK_INTERVAL = 1.0
"""Seconds between two looks at how much of an answer a client has taken."""

RECEIVE_BYTES = 4 * 1024
"""Bytes of one read. As chunks of one byte they take 6 ms; then other tasks run."""

BROKEN_OFF = "the request's body breaks off"

GONE = OSError, trio.ClosedResourceError, trio.BrokenResourceError
"""The client is gone, or its connection was cut."""

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class RequestStream:
    """A connection's stream, owned by the connection's task.

    `busy`: Hypercorn has a request and has not answered it, and the request's body is not being read.
    `awaits_body`: the application waits for it.
    Hypercorn reads the addresses from `socket`; `context` tells it to close an idle connection.
    `idle_since` and `writing_since` are in trio's time, the latter infinite if nothing is written. A
    request's first byte begins `idle_since` anew.
    """

    def __init__(
        self,
        sock: socket.socket,
        enter: Callable[[], Awaitable[None]],
        refused: Callable[[str, str, bytes], Sequence[tuple[str, str]]],
        received: Callable[[], None],
    ) -> None:
        """
        Arguments:
            enter: waits until this connection may start a request.
            refused: gets the code, the message and the head of each refused request; the head is empty
                if it did not come whole. Returns headers for the answer.
            received: called when `unfinished` has grown.
        """
        self.socket = sock
        self.context = WorkerContext(None)
        self.busy = self.awaits_body = False
        self.idle_since = trio.current_time()
        self.writing_since = math.inf
        self._enter = enter
        self._refused = refused
        self._on_received = received
        self._answered = trio.Event()
        self._answered.set()
        self._received = bytearray()
        self._request: IncomingRequest | None = None
        self._deadline = math.inf
        self._head = b""
        self._served = 0

    async def receive_some(self, _max_bytes: int | None = None) -> bytes:
        """Return the next request, or nothing if there is none."""
        await self._answered.wait()
        request = await self._next_request() if await self._skip_body() else None
        if isinstance(request, IncomingRequest):
            self._answered = trio.Event()
            self.busy = True
            self._served += 1
            return request.rewritten()
        if request is not None:
            await self._refuse(request)
        # Otherwise Hypercorn would keep the descriptor until its own timer ends.
        await self.context.terminated.set()
        return b""

    @property
    def has_body(self) -> bool:
        """Return whether the request that is being answered has a body."""
        return self._request is not None and self._request.has_body

    @property
    def must_end(self) -> bool:
        """Return whether the connection must end with its next answer: the rest of the request's body
        may never come, or is too long to be skipped.
        """
        request = self._request
        return request is not None and not (request.is_whole or request.can_skip)

    async def read_body(self) -> bytes:
        """Return the body of the request that is being answered, when all of it is here. Call it once.

        Errors: Refusal.
        """
        request = self._request
        if request is None:
            raise Refusal(Refused.BAD_REQUEST, BROKEN_OFF)
        if not request.is_whole:
            # A connection may be cut to make room while its client sends a body.
            self.busy, self.awaits_body = False, True
            try:
                await self._await_body(request)
                # The work begins now, in its turn.
                await self._enter()
            finally:
                self.busy, self.awaits_body = True, False
            # A connection may also be cut while it waits for its turn.
            if self.over:
                raise Refusal(Refused.BAD_REQUEST, BROKEN_OFF)
        body = bytes(request.body)
        request.drop_body()
        return body

    async def _await_body(self, request: IncomingRequest) -> None:
        """Read the rest of a body that the application waits for. Errors: Refusal."""
        try:
            if request.expects_continue:
                with trio.fail_at(self._deadline):
                    await send_all(self.socket, CONTINUE)
            await self._take_steadily(request)
        except GONE:
            request.is_lost = True
            raise Refusal(Refused.BAD_REQUEST, BROKEN_OFF) from None
        except Refusal as refusal:
            self._count(refusal)
            raise
        except trio.TooSlowError:
            request.is_lost = True
            message = f"less than {MIN_PROGRESS} bytes of the body came in {REQUEST_TIMEOUT:g} s"
            too_slow = Refusal(Refused.REQUEST_TIMEOUT, message)
            self._count(too_slow)
            raise too_slow from None

    @property
    def unfinished(self) -> int:
        """Return the number of bytes received of requests that are not whole yet or must wait, without
        `kept`.
        """
        request = self._request
        is_dropped = request and not (request.is_whole or request.is_read)
        return len(self._received) + (request.on_wire if request and is_dropped else 0)

    @property
    def kept(self) -> int:
        """Return the number of bytes of an unfinished body that a route reads."""
        request = self._request
        return len(request.body) if request and not request.is_whole else 0

    def answered(self) -> None:
        """Note that the application has finished the request."""
        self.busy = False
        if self._request:
            self._request.drop_body()
        self.idle_since = trio.current_time()
        self._answered.set()

    async def send_all(self, data: bytes) -> None:
        """Write while the client takes the data, even in a scope that Hypercorn shields.

        Errors: BrokenResourceError, ClosedResourceError.
        """
        self.writing_since = trio.current_time()
        try:
            await _send_steadily(self.socket, data)
        except (OSError, trio.TooSlowError) as error:
            # After the cut, the client's further requests are not started.
            self.cut()
            raise trio.BrokenResourceError from error
        finally:
            self.writing_since = math.inf

    async def send_eof(self) -> None:
        """Close the writing side."""
        await trio.lowlevel.checkpoint()
        # An OSError means that the client is gone.
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    async def aclose(self) -> None:
        """Read what the client has sent, then close: unread bytes would make the kernel send a reset,
        which may destroy our answer.
        """
        await trio.lowlevel.checkpoint()
        request = self._request
        with suppress(*GONE):
            # After an early answer. Otherwise the connection's own task may be reading.
            if request and not (request.is_whole or request.is_lost or self._answered.is_set()):
                await self._linger()
            else:
                receive_nowait(self.socket, MAX_HEAD)
        self.cut()

    @property
    def over(self) -> bool:
        """Return whether the connection was cut."""
        return self.socket.fileno() == -1

    def cut(self) -> None:
        """Close at once, and wake all tasks that wait for the socket or an answer."""
        close(self.socket)
        self._answered.set()
        self._received.clear()
        self._request = None

    async def _linger(self) -> None:
        """Read and drop what the client sends after an early answer, until it closes or falls silent.

        A stop does not wait for a client that goes on sending. Errors: OSError, ClosedResourceError.
        """
        self.busy = False
        with trio.move_on_after(REQUEST_TIMEOUT):
            while True:
                data = b""
                with trio.move_on_after(LINGER_TIMEOUT):
                    data = await receive(self.socket, LINGER_BYTES)
                if not data or self.context.terminated.is_set():
                    break

    async def _skip_body(self) -> bool:
        """Read and drop the rest of the last request's body. Return False if that fails."""
        request = self._request
        if request is None or request.is_whole:
            return True
        try:
            # The application's time was not the client's.
            with trio.fail_at(max(self._deadline, trio.current_time() + LINGER_TIMEOUT)):
                await self._take_body(request)
        except (Refusal, trio.TooSlowError, *GONE):
            return False
        return True

    async def _next_request(self) -> IncomingRequest | Refusal | None:
        """Return the next request when it may start, or the refusal to answer. Its body may still come.

        Return None if the client has left, or sent nothing in time.
        """
        try:
            return await self._begun_request()
        except Refusal as refusal:
            return refusal
        except trio.TooSlowError:
            message = f"the request did not come in {REQUEST_TIMEOUT:g} s"
            return Refusal(Refused.REQUEST_TIMEOUT, message)
        except NotHttp as other:
            self._refused(other.reason, str(other), b"")
            return None
        except GONE:
            return None

    async def _begun_request(self) -> IncomingRequest | None:
        if not self._received:
            with trio.move_on_after(KEEP_ALIVE_TIMEOUT):
                await self._receive()
        if not self._received:
            return None
        self.idle_since = trio.current_time()
        with trio.fail_after(REQUEST_TIMEOUT) as time:
            request = await self._read_request()
        waiting_since = trio.current_time()
        await self._enter()
        self._deadline = time.deadline + trio.current_time() - waiting_since
        # A client may send one request and close its side. It reads no answers to further requests.
        is_gone = self.over or (self._served and has_left(self.socket))
        return None if is_gone else request

    async def _read_request(self) -> IncomingRequest | None:
        searched, self._head = 0, b""
        while (head := take_head(self._received, searched, MAX_HEAD)) is None:
            searched = len(self._received)
            if not await self._receive():
                return None
        self._head = head
        self._request = request = IncomingRequest(head)
        request.take_body(self._received)
        return request

    async def _take_steadily(self, request: IncomingRequest) -> None:
        """Read the rest of a body while it comes. Errors: Refusal, TooSlowError, and those of GONE."""
        counted = request.on_wire
        while not request.take_body(self._received):
            if request.on_wire >= counted + MIN_PROGRESS:
                counted = request.on_wire
                self._deadline = trio.current_time() + REQUEST_TIMEOUT
            with trio.fail_at(self._deadline):
                if not await self._receive():
                    raise trio.BrokenResourceError

    async def _take_body(self, request: IncomingRequest) -> None:
        """Read the rest of a body. Errors: Refusal, and those of GONE."""
        while not request.take_body(self._received):
            if not await self._receive():
                raise trio.BrokenResourceError

    async def _receive(self) -> bool:
        """Read more bytes; False at the end of the stream."""
        data = await receive(self.socket, RECEIVE_BYTES)
        self._received += data
        self._on_received()
        return bool(data)

    async def _refuse(self, refusal: Refusal) -> None:
        """Answer a request that Hypercorn never sees, and let the client read that before the close."""
        headers = self._count(refusal)
        self._request = None
        answer = response(refusal, h11.Connection(h11.SERVER), headers, has_body=True)
        # The new h11 connection does not know the request's method.
        if self._head.startswith(b"HEAD "):
            answer = answer[: answer.index(b"\r\n\r\n") + 4]
        with suppress(OSError, trio.ClosedResourceError):
            await send_last(self.socket, answer)

    def _count(self, refusal: Refusal) -> Sequence[tuple[str, str]]:
        """Count a refusal. Return headers for its answer."""
        return self._refused(refusal.refused.value.code, str(refusal), self._head)


async def _send_steadily(sock: socket.socket, data: bytes) -> None:
    """Send `data` while the client takes MIN_PROGRESS bytes in each WRITE_TIMEOUT.

    The client's acknowledgements tell it, as this kernel takes some 64 KB at once. Errors: OSError,
    ClosedResourceError, TooSlowError.
    """
    rest, taken, since = memoryview(data), 0, trio.current_time()
    while rest:
        try:
            rest = rest[sock.send(rest) :]
        except BlockingIOError:
            numbers = peer_numbers(sock)
            acknowledged = numbers.acknowledged if numbers else 0
            if acknowledged >= taken + MIN_PROGRESS:
                taken, since = acknowledged, trio.current_time()
            elif trio.current_time() >= since + WRITE_TIMEOUT:
                raise trio.TooSlowError from None
            with trio.move_on_after(LOOK_INTERVAL):
                await trio.lowlevel.wait_writable(sock)
