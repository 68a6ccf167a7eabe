"""The edge of an HTTP port: it accepts and bounds connections, and runs Hypercorn for each.

Hypercorn's own server runs all connections in the application's nursery, accepts HTTP/2 and WebSocket,
and writes without a deadline. With it, one hostile packet ended the process, and one client that did
not read delayed the stop. So the edge accepts connections itself, up to a limit that leaves descriptors
for the streaming port. It runs Hypercorn's `TCPServer` for each connection, on a stream that passes on
only valid HTTP/1.1 requests (`http_stream.py`). An exception there ends only that connection.
"""

import logging
import math
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import structlog
import trio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.gateway.refusals import Refusal
from server.gateway.request import header_values
from server.gateway.sampling import Sampler
from server.gateway.sockets import (
    ACCEPT_PAUSE,
    OutOfResources,
    accept_nowait,
    close,
    ignore_new,
)
from server.ops.cors import Sharing
from server.ops.endpoint import BODY, TIME_OUT
from server.ops.http_library import Config, ConnectionState, TCPServer
from server.ops.http_request import MAX_BODY, MAX_HEAD
from server.ops.http_stream import RequestStream
from server.ops.problems import ApiError, Problem
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
"""Bytes of unfinished bodies that a route reads: sixteen of the largest batches of prices, or four of
the largest files of instruments.
"""

WRITE_PATIENCE = 0.5
"""Seconds for which a client may leave its answer unread while other clients wait for a place."""

FRESH = 0.1
"""Seconds from a request's first byte, or from the connection, until the request starts. Before that a
connection does not count as idle. Otherwise newcomers would cut each other before any is answered.
"""

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
        charge: Callable[[str, str], str],
        sharing: Sharing,
    ) -> None:
        """
        Arguments:
            charge: gets the connection's other end and `X-Forwarded-For` of each request that is
                refused here, and returns the client's address.
            sharing: says which pages may read these refusals.
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
        self._sharing = sharing
        self._changed = trio.lowlevel.ParkingLot()
        self._accepting = trio.CancelScope()
        self._stopped = trio.Event()
        self._refusals = Sampler("HTTP request refused")
        self._config = _hypercorn_config()

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
        self._config.keep_alive_max_requests = 0
        for listener in self._listeners:
            ignore_new(listener)

    async def stop(self) -> None:
        """Close the port and idle connections. Requests in progress have GRACEFUL_TIMEOUT to end."""
        self._config.keep_alive_max_requests = 0
        self._accepting.cancel()
        with trio.move_on_after(GRACEFUL_TIMEOUT + CLOSE_TIME):
            await self._stopped.wait()

    async def _finish(self) -> None:
        for listener in self._listeners:
            close(listener)
        for stream in list(self.streams):
            if stream.awaits_body:
                stream.cut()
            # Hypercorn closes the stream once it is idle.
            await stream.context.terminated.set()
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
                self._pacer.enter,
                partial(self._on_refused, address),
                self._bound_unfinished,
            )
            self.streams[stream] = None
            connections.start_soon(self._serve, stream, name="HTTP connection")

    async def _make_room(self) -> None:
        """Wait until there is room for a connection.

        For that, it cuts the connection that has been idle for longest, and for FRESH. If there is
        none, it cuts the one whose client has left an answer unread for longest, and for
        WRITE_PATIENCE.
        """
        while len(self.streams) >= self._max_connections:
            open_ones = [stream for stream in self.streams if not stream.over]
            now = trio.current_time()
            idle = [each for each in open_ones if not each.busy and each.idle_since < now - FRESH]
            stuck = [each for each in open_ones if each.writing_since < now - WRITE_PATIENCE]
            # Otherwise one that was cut is about to end.
            is_full = len(open_ones) >= self._max_connections
            if is_full and idle:
                self._evict(min(idle, key=lambda stream: stream.idle_since))
            elif is_full and stuck:
                self._evict(min(stuck, key=lambda stream: stream.writing_since))
            with trio.move_on_after(FRESH):
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
        """Run one connection. No exception but a cancellation leaves this method."""
        server = TCPServer(
            partial(self._answer, stream),
            self._config,
            stream.context,
            ConnectionState({}),
            stream,  # type: ignore[arg-type]  # it has all that Hypercorn uses of a socket stream
        )
        try:
            await server.run()
        except* Exception as errors:
            self.failures += 1
            log.error("HTTP connection failed", exc_info=errors)
        finally:
            stream.cut()
            # Breaks a reference cycle, which would live until the next full collection.
            vars(server).clear()
            del self.streams[stream]
            self._changed.unpark_all()

    async def _answer(
        self, stream: RequestStream, scope: Scope, receive: Receive, send: Send, *_: Any
    ) -> None:
        """Let the application answer one request."""
        time_out = trio.CancelScope(deadline=trio.current_time() + ANSWER_TIMEOUT)
        scope = {**scope, TIME_OUT: time_out}
        if stream.has_body:
            scope[BODY] = partial(_read_body, stream, time_out)
        try:
            await self._app(scope, receive, partial(_send_answer, stream, send, time_out))
            if time_out.cancelled_caught:
                self.failures += 1
                log.error("no answer to an HTTP request in time", seconds=ANSWER_TIMEOUT)
        except* Exception as errors:
            # Starlette has answered 500 and raises the error again for the log.
            self.failures += 1
            log.error("request failed", exc_info=errors.exceptions[0])
        finally:
            stream.answered()
            self._changed.unpark_all()

    def _on_refused(self, peer: str, code: str, message: str, head: bytes) -> list[tuple[str, str]]:
        self.refused[code] += 1
        address = self._charge(peer, ",".join(header_values(head, b"x-forwarded-for")))
        self._refusals.log(code, message, address=address)
        return self._sharing.headers("".join(header_values(head, b"origin")))


def _hypercorn_config() -> Config:
    """Return settings that disable Hypercorn's limits and deadlines, as the stream has its own."""
    config = Config()
    config.h11_max_incomplete_size = MAX_HEAD + MAX_BODY
    config.keep_alive_timeout = float("inf")
    config.keep_alive_max_requests = 2**63
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")
    config.include_server_header = False
    return config


async def _read_body(stream: RequestStream, time_out: trio.CancelScope) -> bytes:
    """Return the body of the request that a stream answers. Errors: ApiError."""
    with _stopped(time_out):
        try:
            return await stream.read_body()
        except Refusal as refusal:
            status, code, *_ = refusal.refused.value
            raise ApiError(Problem(status, code, ""), str(refusal)) from None


async def _send_answer(
    stream: RequestStream, send: Send, time_out: trio.CancelScope, message: Message
) -> None:
    """Send a part of an answer. An answer that comes before its request's body may be the last one."""
    if message["type"] == "http.response.start" and stream.must_end:
        message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
    with _stopped(time_out):
        await send(message)


@contextmanager
def _stopped(time_out: trio.CancelScope) -> Iterator[None]:
    """Stop the application's time while the client sends or takes: that is the client's time."""
    left, time_out.deadline = time_out.deadline - trio.current_time(), math.inf
    try:
        yield
    finally:
        time_out.deadline = trio.current_time() + left


def _unfinished(stream: RequestStream) -> int:
    return stream.unfinished


def _kept(stream: RequestStream) -> int:
    return stream.kept
