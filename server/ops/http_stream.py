"""One connection of the HTTP port as Hypercorn sees it: a stream that gives it whole, good requests.

Hypercorn reads a request, has the application answer it, and reads the next. This stream gives it the
next one only when the last is answered. So a client that pipelines a thousand requests is served one
by one, in turn with the others. When it leaves, what is not answered yet is never begun.
"""

import math
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

import h11
import trio
from hypercorn.trio.worker_context import WorkerContext

from server.gateway.refusals import Refusal, Refused, response
from server.gateway.request import NotHttp, take_head
from server.gateway.sockets import close, has_left, receive, receive_nowait, send_all, send_last
from server.ops.http_request import MAX_HEAD, IncomingRequest

KEEP_ALIVE_TIMEOUT = 15.0
"""Seconds an idle connection is kept: a scrape interval."""

REQUEST_TIMEOUT = 10.0
"""Seconds from a request's first byte to its last."""

WRITE_TIMEOUT = 10.0
"""Seconds a client has to take what is written at once, which is an answer's head or body."""

RECEIVE_BYTES = 4 * 1024
"""Bytes read at once: as chunks of one byte they take 6 ms, then others get their turn."""

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class RequestStream:
    """Owned by its connection's task. `busy`: a request was given to Hypercorn and is not answered.

    `socket` is what Hypercorn asks for the addresses, `context` has it close the connection once that
    is idle. `idle_since` and `writing_since` are in trio's time, the latter infinite if nothing is
    being written.
    """

    def __init__(
        self,
        sock: socket.socket,
        enter: Callable[[], Awaitable[None]],
        refused: Callable[[str, str], None],
        received: Callable[[], None],
    ) -> None:
        """
        Arguments:
            enter: waits for this connection's turn to have a request answered.
            refused: is told the code and the message of each request that is refused here.
            received: is called when `unfinished` has grown.
        """
        self.socket = sock
        self.context = WorkerContext(None)
        self.busy = False
        self.idle_since = trio.current_time()
        self.writing_since = math.inf
        self._enter = enter
        self._refused = refused
        self._on_received = received
        self._answered = trio.Event()
        self._answered.set()
        self._received = bytearray()
        self._reading: IncomingRequest | None = None
        self._is_head = False
        self._served = 0

    async def receive_some(self, _max_bytes: int | None = None) -> bytes:
        """Return the next request, or nothing if there will be none."""
        await self._answered.wait()
        request = await self._next_request()
        if isinstance(request, IncomingRequest):
            self._answered = trio.Event()
            self.busy = True
            self._served += 1
            return request.rewritten()
        if request is not None:
            await self._refuse(request)
        # Else Hypercorn would wait for its own timer, and keep the descriptor until then.
        await self.context.terminated.set()
        return b""

    @property
    def unfinished(self) -> int:
        """Bytes that have come of a request, or behind the one that is answered."""
        return len(self._received) + (self._reading.on_wire if self._reading else 0)

    def answered(self) -> None:
        """Note that the application has done with the request."""
        self.busy = False
        self.idle_since = trio.current_time()
        self._answered.set()

    async def send_all(self, data: bytes) -> None:
        """Write within WRITE_TIMEOUT, whatever shield Hypercorn has around this.

        Errors: BrokenResourceError, ClosedResourceError.
        """
        self.writing_since = trio.current_time()
        try:
            with trio.fail_after(WRITE_TIMEOUT):
                await send_all(self.socket, data)
        except (OSError, trio.TooSlowError) as error:
            self.cut()  # what it has sent further is not begun
            raise trio.BrokenResourceError from error
        finally:
            self.writing_since = math.inf

    async def send_eof(self) -> None:
        """Say that nothing more is written."""
        await trio.lowlevel.checkpoint()
        with suppress(OSError):  # the client is gone
            self.socket.shutdown(socket.SHUT_WR)

    async def aclose(self) -> None:
        """Close; what the client has sent already must not have its kernel drop our answer."""
        await trio.lowlevel.checkpoint()
        with suppress(OSError):
            receive_nowait(self.socket, MAX_HEAD)
        self.cut()

    @property
    def over(self) -> bool:
        """Whether the connection was cut."""
        return self.socket.fileno() == -1

    def cut(self) -> None:
        """Close at once, whatever waits for the socket, or for an answer that will not come."""
        close(self.socket)
        self._answered.set()
        self._received.clear()
        self._reading = None

    async def _next_request(self) -> IncomingRequest | Refusal | None:
        """Return a whole request when it is its turn, or what is to be answered in place of it; None
        if the client has left, or sends none.
        """
        try:
            return await self._whole_request()
        except Refusal as refusal:
            return refusal
        except trio.TooSlowError:
            message = f"the request did not come in {REQUEST_TIMEOUT:g} s"
            return Refusal(Refused.REQUEST_TIMEOUT, message)
        except NotHttp as other:
            self._refused(other.reason, str(other))
        except (OSError, trio.ClosedResourceError):
            pass  # the client is gone, or was cut
        return None

    async def _whole_request(self) -> IncomingRequest | None:
        if not self._received:
            with trio.move_on_after(KEEP_ALIVE_TIMEOUT):
                await self._receive()
        if not self._received:
            return None
        with trio.fail_after(REQUEST_TIMEOUT):
            request = await self._read_request()
        await self._enter()
        # A client may send one request and close its side; of more than one, it reads no answer.
        return None if self._served and has_left(self.socket) else request

    async def _read_request(self) -> IncomingRequest | None:
        searched, self._is_head = 0, False
        while (head := take_head(self._received, searched, MAX_HEAD)) is None:
            searched = len(self._received)
            if not await self._receive():
                return None
        self._is_head = head.startswith(b"HEAD ")
        self._reading = request = IncomingRequest(head)
        if request.expects_continue:
            await send_all(self.socket, CONTINUE)
        while not request.take_body(self._received):
            if not await self._receive():
                return None
        self._reading = None
        return request

    async def _receive(self) -> bool:
        """Read on; False at the end of the stream."""
        data = await receive(self.socket, RECEIVE_BYTES)
        self._received += data
        self._on_received()
        return bool(data)

    async def _refuse(self, refusal: Refusal) -> None:
        """Answer what Hypercorn never sees, and let the client read that before the close."""
        self._refused(refusal.refused.value.code, str(refusal))
        answer = response(refusal, h11.Connection(h11.SERVER), has_body=True)
        if self._is_head:  # which the new h11 connection does not know
            answer = answer[: answer.index(b"\r\n\r\n") + 4]
        with suppress(OSError, trio.ClosedResourceError):
            await send_last(self.socket, answer)
