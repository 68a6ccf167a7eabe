"""The HTTP edge with requests that start before their bodies are here."""

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress

import pytest
import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from trio.testing import wait_all_tasks_blocked

from server.gateway.sockets import LINGER_TIMEOUT, receive
from server.ops import http_edge, http_stream
from server.ops.cors import Sharing
from server.ops.endpoint import EarlyRoute, read_body
from server.ops.http import build_http_app
from server.ops.http_edge import ANSWER_TIMEOUT, CLOSE_TIME, HttpEdge
from server.ops.http_request import MAX_BODY
from server.ops.http_stream import MIN_PROGRESS, REQUEST_TIMEOUT
from server.ops.lag import LoopLag
from server.ops.problems import UNAUTHORIZED, ApiError
from server.ops.request_pacer import MAX_INTERVAL, RequestPacer
from server.pacing import wait_until
from server.process.binding import bind
from tests.http_wire import HttpAnswer, take_answer

ROOM = 5

CROWD = 60
"""Clients that send the last bytes of their requests at the same time."""

FILE_SIZE = 300_000
"""Bytes: more than the kernel takes at once, and more than the largest file of a page."""

SLOW_RATE = 40_000
"""Bytes a second of a slow link."""

SHORT_TIME = 2.0
"""Seconds, in place of longer deadlines."""

HALF = b"POST /prices HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc"

REST = b"x" * 97

EARLY = b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc"
"""A request that is refused before its body has come."""


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
    bytes. `begun` counts the
    requests to `/prices`, `started` has the times at which their bodies were there. `charged` counts
    refusals that the edge charged to a client.
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

    async def _give(self, _: Request) -> Response:
        return Response(bytes(FILE_SIZE))

    def _charge(self, address: str, _: str) -> str:
        self.charged += 1
        return address


@asynccontextmanager
async def running(room: int = CROWD, pacer: RequestPacer | None = None) -> AsyncIterator[Site]:
    """Run an edge, and check that no connection of it failed."""
    site = Site(room, pacer or Gate())
    async with trio.open_nursery() as nursery:
        await nursery.start(site.edge.run)
        yield site
        nursery.cancel_scope.cancel()
    assert site.edge.failures == 0


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


async def test_requests_whose_bodies_come_together_take_their_turns(autojump_clock):
    """Clients send their heads, and later all their bodies at once. The pacer spaces the work."""
    pacer = RequestPacer(SteadyLoad())
    pacer.interval = MAX_INTERVAL
    async with running(CROWD, pacer) as site:
        with ExitStack() as crowd:
            half = b"POST /prices HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n"
            clients = [crowd.enter_context(site.client(half)) for _ in range(CROWD)]
            await wait_until(lambda: site.begun == CROWD)
            for client in clients:
                client.sendall(b"x")
            await wait_until(lambda: len(site.started) == CROWD)
    gaps = [after - before for before, after in zip(site.started, site.started[1:], strict=False)]
    assert min(gaps) >= 0.99 * MAX_INTERVAL


async def test_stop_ends_a_request_that_is_half_sent(autojump_clock):
    """A stop cuts the connection at once, and does not wait for the rest of the body."""
    async with running() as site:
        with site.client(HALF) as client:
            await wait_until(lambda: site.begun == 1)
            begun = trio.current_time()
            await site.edge.stop()
            assert trio.current_time() - begun < CLOSE_TIME
            assert await receive(client, 1) == b""
        assert not site.started
        assert not site.edge.streams


async def test_stop_ends_a_request_that_was_refused_before_its_body(autojump_clock):
    """A stop closes the connection while the edge skips the body's rest."""
    async with running() as site:
        with site.client(EARLY) as client:
            answer = await take(client)
            assert answer.verdict == (401, "unauthorized")
            assert not answer.is_last
            await wait_all_tasks_blocked()
            await site.edge.stop()
            assert await receive(client, 1) == b""
        assert not site.edge.streams


async def test_stop_does_not_wait_for_a_refused_client_that_goes_on_sending(autojump_clock):
    """The client has its answer. Each further byte would keep the connection open."""
    head = b"POST /early HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with running() as site:
        with site.client(head) as client:
            answer = await take(client)
            assert answer.verdict == (401, "unauthorized")
            assert answer.is_last
            begun = trio.current_time()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(site.edge.stop)
                await wait_all_tasks_blocked()
                while site.edge.streams:
                    with suppress(OSError):
                        client.sendall(b"1\r\nx\r\n")
                    await trio.sleep(LINGER_TIMEOUT / 10)
            assert trio.current_time() - begun < LINGER_TIMEOUT


async def test_stop_ends_a_request_before_its_turn(autojump_clock):
    """A request that waits for its turn at a stop never reaches the application."""
    gate = Gate()
    async with running(pacer=gate) as site:
        with site.client(b"") as client:
            await wait_until(lambda: len(site.edge.streams) == 1)
            gate.close()
            client.sendall(HALF)
            await wait_all_tasks_blocked()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(site.edge.stop)
                await wait_all_tasks_blocked()
                gate.open()
        assert not site.begun
        assert not site.edge.streams


async def test_stop_ends_a_request_whose_body_waits_for_its_turn(autojump_clock):
    """The body is whole, but the application has not got it. After a stop, it never does."""
    gate = Gate()
    async with running(pacer=gate) as site:
        with site.client(HALF) as client:
            await wait_until(lambda: site.begun == 1)
            gate.close()
            client.sendall(REST)
            await wait_all_tasks_blocked()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(site.edge.stop)
                await wait_all_tasks_blocked()
                gate.open()
        assert not site.started
        assert not site.edge.streams


async def test_newcomer_costs_one_connection(autojump_clock):
    """While one cut connection still ends, the edge does not cut another one."""
    async with running(ROOM) as site:
        with ExitStack() as crowd:
            for _ in range(2):
                crowd.enter_context(site.client(HALF))
            await wait_until(lambda: site.begun == 2)
            ask = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
            for _ in range(ROOM - 2):
                assert (await take(crowd.enter_context(site.client(ask)))).status == 200
            assert (await take(crowd.enter_context(site.client(ask)))).status == 200
        assert site.edge.evicted == 1


@pytest.mark.parametrize(
    ("path", "verdict"),
    [(b"/prices", (408, "request_timeout")), (b"/early", (401, "unauthorized"))],
)
async def test_head_is_whole_after_the_deadline(autojump_clock, path, verdict):
    """The event loop stands still while the head's end arrives. The client has used its time."""
    async with running() as site:
        with site.client(b"POST " + path + b" HTTP/1.1\r\nHost: a\r\n") as client:
            await wait_all_tasks_blocked()
            client.sendall(b"Content-Length: 100\r\n\r\nabc")
            autojump_clock.jump(REQUEST_TIMEOUT + 1)
            assert (await take(client)).verdict == verdict
            assert await receive(client, 1) == b""


async def test_body_that_is_too_slow_ends_its_connection(autojump_clock):
    """The answer says that it is the last one, and the client gets no more time."""
    async with running() as site:
        begun = trio.current_time()
        with site.client(HALF) as client:
            answer = await take(client)
            assert answer.verdict == (408, "request_timeout")
            assert answer.is_last
            assert await receive(client, 1) == b""
            assert trio.current_time() - begun == pytest.approx(REQUEST_TIMEOUT, abs=0.1)
        assert site.edge.refused == {"request_timeout": 1}
        assert site.charged == 1


async def test_body_that_goes_on_coming_is_awaited(autojump_clock):
    """Neither the client's deadline for a part nor the application's for an answer ends it."""
    parts = 5
    head = b"POST /prices HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (
        parts * MIN_PROGRESS
    )
    async with running() as site:
        with site.client(head) as client:
            for _ in range(parts):
                await trio.sleep(REQUEST_TIMEOUT - 1)
                client.sendall(b"x" * MIN_PROGRESS)
            assert (await take(client)).status == 200
            assert trio.current_time() > ANSWER_TIMEOUT


async def test_body_that_comes_in_drops_ends_its_connection(autojump_clock):
    """A client holds its place no longer because it sends a little from time to time."""
    head = b"POST /prices HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (9 * MIN_PROGRESS)
    async with running() as site:
        begun = trio.current_time()
        with site.client(head) as client:
            for _ in range(int(REQUEST_TIMEOUT)):
                client.sendall(b"x" * (MIN_PROGRESS // 20))
                await trio.sleep(1)
            assert (await take(client)).verdict == (408, "request_timeout")
            assert trio.current_time() - begun == pytest.approx(REQUEST_TIMEOUT, abs=0.1)


async def test_client_that_reads_slowly_gets_its_whole_answer(monkeypatch):
    """It takes longer for the file than for a part of it, or than the application has for an answer."""
    monkeypatch.setattr(http_stream, "WRITE_TIMEOUT", SHORT_TIME)
    monkeypatch.setattr(http_edge, "ANSWER_TIMEOUT", SHORT_TIME)
    async with running() as site:
        with site.narrow_client(b"GET /file HTTP/1.1\r\nHost: a\r\n\r\n") as client:
            begun, received = trio.current_time(), b""
            while (taken := take_answer(received, "GET")) is None:
                # Its link is that slow.
                await trio.sleep(0.1)
                data = await receive(client, SLOW_RATE // 10)
                assert data, f"the answer breaks off after {len(received)} bytes"
                received += data
            assert taken[0].body == bytes(FILE_SIZE)
            assert trio.current_time() - begun > 2 * SHORT_TIME


async def test_client_that_reads_nothing_is_cut(monkeypatch):
    """The kernel takes the first part of its answer all the same."""
    monkeypatch.setattr(http_stream, "WRITE_TIMEOUT", SHORT_TIME / 4)
    async with running() as site:
        with site.narrow_client(b"GET /file HTTP/1.1\r\nHost: a\r\n\r\n"):
            await wait_until(lambda: len(site.edge.streams) == 1)
            with trio.fail_after(30):
                await wait_until(lambda: not site.edge.streams)


async def test_client_that_goes_on_sending_reads_its_refusal(autojump_clock):
    """A chunked body turns out to be too long. To close at once would reset the connection."""
    head = b"POST /healthz HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with running() as site:
        with site.client(head) as client:
            await wait_all_tasks_blocked()
            client.sendall(b"%x\r\n" % (8 * MAX_BODY) + b"x" * 2 * MAX_BODY)
            answer = await take(client)
            assert answer.verdict == (413, "too_large")
            assert answer.is_last
            # To a closed socket, the second of these would fail.
            for _ in range(2):
                await wait_all_tasks_blocked()
                client.sendall(b"x" * MAX_BODY)
            assert await receive(client, 1) == b""


async def test_client_that_leaves_in_the_middle_of_its_body_is_not_refused(autojump_clock):
    """A lost connection is neither counted as a bad request nor charged to its client."""
    async with running() as site:
        with site.client(HALF):
            await wait_until(lambda: site.begun == 1)
        await wait_until(lambda: not site.edge.streams)
        assert not site.started
        assert not site.edge.refused
        assert not site.charged


async def test_answer_to_a_body_that_breaks_off_is_the_last(autojump_clock):
    """The client closes its side in the middle of its body, and reads on."""
    async with running() as site:
        with site.client(HALF) as client:
            await wait_until(lambda: site.begun == 1)
            client.shutdown(socket.SHUT_WR)
            answer = await take(client)
            assert answer.verdict == (400, "bad_request")
            assert answer.is_last
            assert await receive(client, 1) == b""
        assert not site.started
