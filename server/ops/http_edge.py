"""The edge of an HTTP port: it accepts and bounds connections, and lets the application answer them.

It accepts connections up to a limit that leaves descriptors for the streaming port. Each has a task,
which reads valid requests (`http_stream.py`) and writes answers (`http_answer.py`). An exception there
ends only that connection.

Rejected: Hypercorn. Its own server ran all connections in one nursery, accepted HTTP/2 and WebSocket,
and wrote without a deadline: one hostile packet ended the process. Run behind this edge, it took 3 MB,
a tenth of a start, and half of the cheapest request's time.
"""

import socket
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

import structlog
import trio
from starlette.types import ASGIApp

from server.gateway.sampling import Sampler
from server.gateway.sockets import (
    ACCEPT_PAUSE,
    OutOfResources,
    accept_nowait,
    close,
    ignore_new,
)
from server.ops.http_answer import Answer
from server.ops.http_request import IncomingRequest
from server.ops.http_stream import RequestStream
from server.ops.request_pacer import RequestPacer

HTTP_BACKLOG = 256
"""Connections that the kernel queues: a second's worth. A longer queue only makes clients wait."""

GRACEFUL_TIMEOUT = 3.0
"""Seconds for a request in progress at a shutdown: as long as routes wait for a store."""

CLOSE_TIME = 0.25
"""Seconds for cut connections to end."""

MAX_UNFINISHED = 4 * 1024 * 1024
"""Bytes of unfinished requests on all connections. More bytes are an attack, and the C library's
allocator would not return their memory to the system.
"""

MAX_BODIES = 16 * 1024 * 1024
"""Bytes of unfinished bodies that a route reads: sixteen of the largest batches of prices."""

WRITE_PATIENCE = 0.5
"""Seconds for which a client may leave its answer unread while other clients wait for a place."""

ANSWER_TIMEOUT = 30.0
"""Seconds for the application to answer one request. Its own deadlines are shorter."""

log = structlog.get_logger()


class HttpPorts:
    """All HTTP ports of the server together."""

    def __init__(self, edges: Sequence["HttpEdge"]) -> None:
        self.edges = edges

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until stopped or cancelled."""
        async with trio.open_nursery() as nursery:
            for edge in self.edges:
                await nursery.start(edge.run)
            task_status.started()

    def leave(self) -> None:
        """Leave new connections to other processes that share the ports (see `HttpEdge.leave`)."""
        for edge in self.edges:
            edge.leave()

    async def stop(self) -> None:
        """Stop all ports at the same time (see `HttpEdge.stop`)."""
        async with trio.open_nursery() as nursery:
            for edge in self.edges:
                nursery.start_soon(edge.stop)


class HttpEdge:
    """Serves `app` on `listeners`, and closes them. `run` is called once.

    `failures` counts connections and requests that ended with an exception. `evicted` counts
    connections that the edge cut to make room. `refused` counts requests by the code of their refusal.
    """

    def __init__(
        self,
        app: ASGIApp,
        listeners: Sequence[socket.socket],
        max_connections: int,
        pacer: RequestPacer,
        charge: Callable[[str], None],
    ) -> None:
        """
        Arguments:
            charge: gets the client's address for each request that is refused here.
        """
        self.streams: dict[RequestStream, None] = {}
        self.failures = 0
        self.evicted = 0
        self.refused: Counter[str] = Counter()
        self._app = app
        self._listeners = listeners
        self._max_connections = max_connections
        self._pacer = pacer
        self._charge = charge
        self._changed = trio.lowlevel.ParkingLot()
        self._accepting = trio.CancelScope()
        self._stopped = trio.Event()
        self._refusals = Sampler("HTTP request refused")
        self._leaving = False
        self._stopping = False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until stopped or cancelled."""
        try:
            async with trio.open_nursery() as connections:
                try:
                    with self._accepting:
                        async with trio.open_nursery() as accepting:
                            for listener in self._listeners:
                                listener.listen(HTTP_BACKLOG)
                                accepting.start_soon(self._accept, listener, connections)
                            task_status.started()
                    await self._finish()
                finally:
                    # Cancelled without a cut, they would wait for clients that do not read.
                    for stream in self.streams:
                        stream.cut()
                    connections.cancel_scope.cancel()
        finally:
            for listener in self._listeners:
                close(listener)
            self._stopped.set()

    def leave(self) -> None:
        """Leave new connections to other processes that share the port.

        Each open connection gets one more answer, with `Connection: close` (RFC 9112 §9.6). So no
        request is lost.
        """
        self._leaving = True
        for listener in self._listeners:
            ignore_new(listener)

    async def stop(self) -> None:
        """Close the port and idle connections. Requests in progress have GRACEFUL_TIMEOUT to end."""
        self._leaving = self._stopping = True
        self._accepting.cancel()
        with trio.move_on_after(GRACEFUL_TIMEOUT + CLOSE_TIME):
            await self._stopped.wait()

    async def _finish(self) -> None:
        for listener in self._listeners:
            close(listener)
        for stream in self.streams:
            if not stream.busy:
                stream.close()
        with trio.move_on_after(GRACEFUL_TIMEOUT):
            while self.streams:
                await self._changed.park()

    async def _accept(self, listener: socket.socket, connections: trio.Nursery) -> None:
        while True:
            await trio.lowlevel.wait_readable(listener)
            await self._pacer.enter()
            await self._make_room()
            try:
                accepted = accept_nowait(listener)
            except OutOfResources as error:
                log.error("cannot accept HTTP connections", problem=str(error))
                await trio.sleep(ACCEPT_PAUSE)
                continue
            if accepted is None:
                continue
            sock, address = accepted
            stream = RequestStream(
                sock,
                address,
                self._pacer.enter,
                partial(self._on_refused, address),
                self._bound_unfinished,
            )
            self.streams[stream] = None
            connections.start_soon(self._serve, stream, name="HTTP connection")

    async def _make_room(self) -> None:
        """Wait until there is room for a connection.

        For that, it cuts the connection that has been idle for longest. If none is idle, it waits for
        WRITE_PATIENCE, and cuts the one whose client has left an answer unread for longest.
        """
        while len(self.streams) >= self._max_connections:
            open_ones = [stream for stream in self.streams if not stream.over]
            idle = [stream for stream in open_ones if not stream.busy]
            late = trio.current_time() - WRITE_PATIENCE
            stuck = [stream for stream in open_ones if stream.writing_since < late]
            if idle:
                self._evict(min(idle, key=lambda stream: stream.idle_since))
            elif stuck:
                self._evict(min(stuck, key=lambda stream: stream.writing_since))
            with trio.move_on_after(WRITE_PATIENCE):
                await self._changed.park()

    def _evict(self, stream: RequestStream) -> None:
        stream.cut()
        self.evicted += 1

    def _bound_unfinished(self) -> None:
        """Cut the connection with the most unfinished bytes if all exceed their limit."""
        for size, most in ((_unfinished, MAX_UNFINISHED), (_kept, MAX_BODIES)):
            if sum(map(size, self.streams)) > most:
                self._evict(max(self.streams, key=size))

    async def _serve(self, stream: RequestStream) -> None:
        """Answer a connection's requests. No exception but a cancellation leaves this method."""
        try:
            while not self._stopping and (request := await stream.next_request()):
                if not await self._answer(stream, request):
                    break
            stream.close()
        except Exception as error:
            self.failures += 1
            log.error("HTTP connection failed", exc_info=error)
        finally:
            stream.cut()
            del self.streams[stream]
            self._changed.unpark_all()

    async def _answer(self, stream: RequestStream, request: IncomingRequest) -> bool:
        """Let the application answer one request. Return whether the connection goes on."""
        answer = Answer(request, stream.write, lambda: self._leaving)
        try:
            with trio.move_on_after(ANSWER_TIMEOUT) as time_out:
                await self._app(answer.scope(stream.address), answer.receive, answer.send)
            if time_out.cancelled_caught:
                self.failures += 1
                log.error("no answer to an HTTP request in time", seconds=ANSWER_TIMEOUT)
        except Exception as error:
            # Starlette has answered 500 and raises the error again for the log.
            self.failures += 1
            log.error("request failed", exc_info=error)
        goes_on = await answer.finish()
        stream.answered()
        self._changed.unpark_all()
        return goes_on

    def _on_refused(self, address: str, code: str, message: str) -> None:
        self.refused[code] += 1
        self._charge(address)
        self._refusals.log(code, message, address=address)


def _unfinished(stream: RequestStream) -> int:
    return stream.unfinished


def _kept(stream: RequestStream) -> int:
    return stream.kept
