"""A small application on an HTTP edge in this process, and clients of it."""

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from server.gateway.sockets import receive
from server.ops.cors import Sharing
from server.ops.endpoint import EarlyRoute, read_body
from server.ops.http import build_http_app
from server.ops.http_edge import HttpEdge
from server.ops.lag import LoopLag
from server.ops.problems import UNAUTHORIZED, ApiError
from server.ops.request_pacer import RequestPacer
from server.process.binding import bind
from tests.http_wire import HttpAnswer, take_answer

CROWD = 60
"""Clients that send the last bytes of their requests at the same time."""

FILE_SIZE = 300_000
"""Bytes: more than the kernel takes at once, and more than the largest file of a page."""


class SteadyLoad(LoopLag):
    """A loop with a load that leaves the pacer's interval as it is."""

    def take_busy(self, reader: str) -> float:
        return 0.8


class Gate(RequestPacer):
    """A pacer that lets no request start while it is closed."""

    def __init__(self) -> None:
        super().__init__(SteadyLoad())
        self._opened = trio.Event()
        self.open()

    def close(self) -> None:
        self._opened = trio.Event()

    def open(self) -> None:
        self._opened.set()

    async def enter(self) -> None:
        await self._opened.wait()
        await trio.lowlevel.checkpoint()


class Site:
    """A small application on an edge.

    `/early` refuses each request before its body, `/prices` waits for the body. `/file` has FILE_SIZE
    bytes, `/never` gives no answer. `begun` counts the requests to `/prices`, `started` has the times
    at which their bodies were there. `charged` counts refusals that the edge charged to a client.
    """

    def __init__(self, room: int, pacer: RequestPacer) -> None:
        self.begun = self.charged = 0
        self.started: list[float] = []
        listeners = bind("127.0.0.1", 0, "the test")
        self._address = listeners[0].getsockname()
        app = build_http_app(
            [
                EarlyRoute("/early", self._refuse, methods=["POST"]),
                EarlyRoute("/prices", self._take, methods=["POST"]),
                Route("/healthz", self._tell),
                Route("/file", self._give),
                Route("/never", self._wait),
            ]
        )
        self.edge = HttpEdge(app, listeners, room, pacer, self._charge, Sharing())

    @contextmanager
    def client(self, data: bytes) -> Iterator[socket.socket]:
        """Connect, and send bytes at once."""
        with socket.create_connection(self._address) as client:
            client.setblocking(False)
            client.sendall(data)
            yield client

    @contextmanager
    def narrow_client(self, data: bytes) -> Iterator[socket.socket]:
        """Connect as from a slow network: little of an answer is on its way at a time."""
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            # This machine's own segments of 64 KB do not fit such a buffer.
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1000)
            client.connect(self._address)
            client.setblocking(False)
            client.sendall(data)
            yield client

    async def _refuse(self, _: Request) -> JSONResponse:
        raise ApiError(UNAUTHORIZED, "no token")

    async def _take(self, request: Request) -> JSONResponse:
        self.begun += 1
        body = await read_body(request.scope)
        self.started.append(trio.current_time())
        return JSONResponse(len(body))

    async def _tell(self, _: Request) -> JSONResponse:
        return JSONResponse("ok")

    async def _wait(self, _: Request) -> Response:
        await trio.sleep_forever()

    async def _give(self, _: Request) -> Response:
        return Response(bytes(FILE_SIZE))

    def _charge(self, address: str, _: str) -> str:
        self.charged += 1
        return address


@asynccontextmanager
async def running(
    room: int = CROWD, pacer: RequestPacer | None = None, *, failures: int = 0
) -> AsyncIterator[Site]:
    """Run an edge, and check how many of its requests and connections failed."""
    site = Site(room, pacer or Gate())
    async with trio.open_nursery() as nursery:
        await nursery.start(site.edge.run)
        yield site
        nursery.cancel_scope.cancel()
    assert site.edge.failures == failures


async def take(client: socket.socket) -> HttpAnswer:
    """Return the next answer."""
    received = b""
    while (taken := take_answer(received, "POST")) is None:
        data = await receive(client, 65536)
        assert data, f"the connection ends in the middle of an answer: {received!r}"
        received += data
    answer, rest = taken
    assert not rest
    return answer
