"""A gateway on a real port in the test's own process, and clients that write raw bytes to it."""

import socket
import struct
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import ip_network
from typing import Any, cast

import pytest
import structlog.testing
import trio

from server.fanout.frame import deflate, text_frame
from server.fanout.hub import Hub
from server.gateway import gateway as module
from server.gateway.addresses import Proxies
from server.gateway.auth import Authenticator
from server.gateway.budgets import Budget, Budgets
from server.gateway.closing import Close
from server.gateway.deflate import ANSWER
from server.gateway.gateway import Gateway
from server.gateway.pool import Pool
from server.gateway.request import NOT_HTTP_ADVICE
from server.gateway.session import Session
from server.gateway.sockets import OutOfResources, accept_nowait
from server.process.binding import bind
from tests.fanout.peer import instruments, publish
from tests.frames import take_frame
from tests.gateway.harness import COMPLETE, READ_CUSHION
from tests.gateway.wire import PING, PONG, TEXT, frame, head
from tests.processes import SECRET, TIMEOUT, make_token

RSV1 = 0x40
"""The bit of a compressed frame."""


class Broken:
    """A directory with a fault."""

    complete = False

    async def list_symbols(self, symbols: Sequence[str], payer: object = None) -> Sequence[str]:
        raise RuntimeError("the directory is broken")


class Client:
    """One connection, and what came on it that was not looked at yet."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.received = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def head(self) -> list[str]:
        """Return the lines of the answer's head."""
        while b"\r\n\r\n" not in self.received:
            await self._receive()
        lines, _, self.received = self.received.partition(b"\r\n\r\n")
        return lines.decode().split("\r\n")

    async def frame(self) -> tuple[int, bytes]:
        """Return the next frame's first byte and payload, decompressed (RFC 7692 §7.2.2)."""
        while (taken := take_frame(self.received)) is None:
            await self._receive()
        first, payload, self.received = taken
        if first & RSV1:
            payload = zlib.decompressobj(-15).decompress(payload + b"\x00\x00\xff\xff")
        return first, payload

    async def rest(self) -> bytes:
        """Return all that comes until the server closes."""
        with trio.fail_after(TIMEOUT):
            while data := await self.stream.receive_some():
                self.received += data
        return self.received

    async def _receive(self) -> None:
        with trio.fail_after(TIMEOUT):
            data = await self.stream.receive_some()
        assert data, "the server closed the connection"
        self.received += data


class Served:
    """A gateway that serves a hub with AAPL, and its port."""

    def __init__(self, nursery: trio.Nursery, **options: Any) -> None:
        self.nursery = nursery
        self.hub = Hub(instruments("AAPL"))
        self.budgets = Budgets(failures=Budget(0.001, burst=1e6))
        self.gateway = Gateway(
            hub=self.hub,
            pool=Pool(3, 2),
            authenticator=Authenticator(secret=SECRET),
            directory=options.pop("directory", COMPLETE),
            max_symbols=10,
            command_rate=50,
            budgets=self.budgets,
            **options,
        )
        (self.listener,) = bind("127.0.0.1", 0, setting="")
        self.port = self.listener.getsockname()[1]
        self.clients: list[Client] = []
        self.ended = trio.Event()

    @property
    def charged(self) -> int:
        """Return the failures that the local address was charged for."""
        return round((1e6 - self._left("127.0.0.1")) / 1000)

    def _left(self, key: str) -> float:
        return 1e6 - self.budgets.failures.wait(key, 1e9)

    async def start(self) -> None:
        """Begin to serve."""
        await self.nursery.start(self.hub.run)
        await self.nursery.start(self._serve)

    async def _serve(self, **task_status: Any) -> None:
        await self.gateway.serve([self.listener], **task_status)
        self.ended.set()

    async def connect(self) -> Client:
        client = Client(await trio.open_tcp_stream("127.0.0.1", self.port))
        self.clients.append(client)
        return client

    async def ask(self, query: str = "", **headers: str | None) -> Client:
        """Return a client that has sent a good handshake."""
        client = await self.connect()
        path = f"/ws/quotes?{query}&token={make_token('ann')}"
        await client.send(head(path, "GET", **headers))
        return client


@asynccontextmanager
async def serving(*, at_once: bool = True, **options: Any) -> AsyncIterator[Served]:
    """Serve until the end of the block, from its beginning or later."""
    async with trio.open_nursery() as nursery:
        served = Served(nursery, **options)
        try:
            if at_once:
                await served.start()
            yield served
        finally:
            nursery.cancel_scope.cancel()
            served.listener.close()
            for client in served.clients:
                client.stream.socket.close()


async def until(is_true: Callable[[], object]) -> None:
    """Return once a condition holds."""
    deadline = trio.current_time() + TIMEOUT
    while not is_true():
        assert trio.current_time() < deadline
        await trio.testing.wait_all_tasks_blocked(READ_CUSHION)


@pytest.mark.parametrize(
    ("compression", "offer", "agreed"),
    [
        (True, "permessage-deflate", True),
        (True, "x-other", False),
        (True, None, False),
        (False, "permessage-deflate", False),
    ],
)
async def test_client_gets_its_quote_and_then_its_updates(compression, offer, agreed):
    """Compressed, if both sides agree. A frame right behind the request is read."""
    async with serving(compression=compression) as served:
        client = await served.connect()
        request = head(
            f"/ws/quotes?symbols=AAPL&token={make_token('ann')}",
            Sec_WebSocket_Extensions=offer,
        )
        await client.send(request + frame(PING, b"early"))
        status, *headers = await client.head()
        assert status.startswith("HTTP/1.1 101 ")
        assert (f"Sec-WebSocket-Extensions: {ANSWER}" in headers) == agreed
        text = 0x80 | TEXT | (RSV1 if agreed else 0)
        first, quote = await client.frame()
        assert (first, b'"path":"/quotes/AAPL"' in quote) == (text, True)
        assert await client.frame() == (0x80 | PONG, b"early")
        publish(served.hub, "AAPL", 101.0)
        first, update = await client.frame()
        assert (first, b'"value":101.0' in update) == (text, True)
        ping = b'{"action":"ping","id":7}'
        if agreed:
            ping = deflate(text_frame(ping))[2:]
        await client.send(frame(TEXT | (RSV1 if agreed else 0), ping))
        _, pong = await client.frame()
        assert (b'"type":"pong"' in pong, b'"id":7' in pong) == (True, True)
        assert served.gateway.pool.opened_total == 1
        await client.stream.aclose()
        await until(lambda: not served.gateway.pool.sessions)


def tasks() -> int:
    """Return the number of tasks."""
    return trio.lowlevel.current_statistics().tasks_living


async def listening(served: Served) -> tuple[Client, Session]:
    """Return a client that has its quote and waits for more, and its session."""
    client = await served.ask("symbols=AAPL")
    await client.head()
    await client.frame()
    await trio.testing.wait_all_tasks_blocked(READ_CUSHION)
    (session,) = served.gateway.pool.sessions
    return client, cast("Session", session)


async def test_client_that_only_listens_takes_no_task():
    """Nor does it when it answers pings. A command gets a task, which ends with its answer."""
    async with serving() as served:
        await trio.testing.wait_all_tasks_blocked(READ_CUSHION)
        before = tasks()
        client, session = await listening(served)
        assert tasks() == before + 1, "the topic's"
        for _ in range(3):
            session.ping()
            await client.frame()
            assert session.unanswered == 1
            await client.send(frame(PONG))
            await until(lambda: not session.unanswered)
            assert (tasks(), session._protocol) == (before + 1, None)
        await client.send(frame(TEXT, b'{"action":"ping"}'))
        assert b'"type":"pong"' in (await client.frame())[1]
        await trio.testing.wait_all_tasks_blocked(READ_CUSHION)
        assert tasks() == before + 1


async def test_connection_without_a_task_gives_its_socket_back():
    """A session that is dropped while it waits makes room for another, as one that has a task does."""
    async with serving(max_sockets=1) as served:
        for _ in range(3):
            client, session = await listening(served)
            session.drop(Close.NO_ANSWER)
            await client.rest()
            assert session.over
            await until(lambda: not served.gateway.pool.sessions)


async def test_connections_without_a_task_are_closed_when_the_server_fails():
    """A gateway that is cancelled leaves no session and no socket behind."""
    async with serving() as served:
        _, session = await listening(served)
        served.nursery.cancel_scope.cancel()
    assert not served.gateway.pool.sessions
    assert session.over
    assert session.outbox.sock.fileno() == -1


@pytest.mark.parametrize(
    ("request_", "reason", "message", "charged", "answer"),
    [
        (head("/nowhere"), "not_found", "nothing here but /ws/quotes", 2, b"404"),
        (head("/ws/quotes?token=x"), "unauthorized", "the token is malformed", 2, b"401"),
        (b"hello\r\n", "not_http", NOT_HTTP_ADVICE, 2, b""),
        (b"GET /ws", "handshake_aborted", "the client left during the handshake", 2, b""),
        (
            head(f"/ws/quotes?token={make_token('full')}"),
            "too_many_connections",
            "you already have 2 connections",
            0,
            b"429",
        ),
    ],
)
async def test_failed_handshakes_are_counted_and_logged(request_, reason, message, charged, answer):
    """The address pays for those that are the client's fault and have no known user."""
    async with serving() as served:
        for _ in range(2):
            served.gateway.pool.reserve_for("full")
        with structlog.testing.capture_logs() as logs:
            for _ in range(2):
                client = await served.connect()
                await client.send(request_)
                if reason == "handshake_aborted":
                    await client.stream.send_eof()
                received = await client.rest()
                assert received[9:12] == answer
                await client.stream.aclose()
        assert served.gateway.pool.rejected == {reason: 2}
        assert served.charged == charged
        assert (logs[0]["event"], logs[0]["reason"]) == ("connection refused", reason)
        assert (logs[0]["message"], logs[0]["address"]) == (message, "127.0.0.1")


async def test_silent_client_is_given_up(monkeypatch):
    """It takes no place of the pool meanwhile."""
    monkeypatch.setattr(module, "HANDSHAKE_TIMEOUT", 0.05)
    async with serving() as served:
        with structlog.testing.capture_logs() as logs:
            assert await (await served.connect()).rest() == b""
        assert served.gateway.pool.rejected == {"handshake_timeout": 1}
        assert logs[0]["message"] == "no handshake in 0.05 s"
        assert (served.charged, served.gateway.pool.places) == (1, 0)


async def test_client_that_left_before_it_was_accepted_has_no_address():
    """The server goes on."""
    async with serving(at_once=False) as served:
        served.listener.listen()
        with socket.create_connection(served.listener.getsockname()) as early:
            early.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with structlog.testing.capture_logs() as logs:
            await served.start()
            await until(lambda: served.gateway.pool.rejected)
    assert served.gateway.pool.rejected == {"handshake_aborted": 1}
    assert logs[0]["address"] == ""


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
async def test_refusal_has_a_body_unless_nobody_reads_it(method):
    """A client that asked with HEAD would take the body for another answer (RFC 9110 §9.3.2)."""
    async with serving() as served:
        client = await served.connect()
        await client.send(head("/nowhere", method))
        status, *_ = await client.head()
        assert status.startswith("HTTP/1.1 404 ")
        body = await client.rest()
        assert body.startswith(b'{"error":') == (method != "HEAD")
        assert bool(body) == (method != "HEAD")


@pytest.mark.parametrize(
    ("trusted", "forwarded", "address"),
    [
        (["127.0.0.0/8"], "192.0.2.7", "192.0.2.7"),
        (["127.0.0.0/8"], None, "127.0.0.1"),
        ([], "192.0.2.7", "127.0.0.1"),
    ],
)
async def test_address_behind_a_proxy_is_the_client_s(trusted, forwarded, address):
    """If the operator trusts the proxy."""
    async with serving(proxies=Proxies([ip_network(each) for each in trusted])) as served:
        client = await served.connect()
        with structlog.testing.capture_logs() as logs:
            await client.send(head("/nowhere", X_Forwarded_For=forwarded))
            await client.rest()
        assert [each["address"] for each in logs] == [address]


async def test_fault_ends_one_connection_only():
    """It is counted and logged, and other clients go on, though no more descriptors are free."""
    async with serving(directory=cast("Any", Broken()), max_sockets=2) as served:
        client = await served.ask("symbols=AAPL")
        await client.head()
        await client.frame()
        for count in (1, 2, 3):
            with structlog.testing.capture_logs() as logs:
                assert await (await served.ask("symbols=NOPE")).rest() == b""
            assert served.gateway.failures == count
            assert [each["event"] for each in logs] == ["connection failed"]
        await client.send(frame(PING, b"still there?"))
        assert await client.frame() == (0x80 | PONG, b"still there?")
        assert (served.gateway.pool.places, len(served.gateway.pool.sessions)) == (1, 1)


async def test_places_of_connections_that_ended_are_free_again(monkeypatch):
    """Exactly theirs. A further client waits, and the operator learns why."""
    monkeypatch.setattr(module, "ACCEPT_PAUSE", 0.01)
    async with serving(max_sockets=2) as served:
        for _ in range(3):
            first, second = [await served.ask() for _ in range(2)]
            for client in (first, second):
                await client.head()
            with structlog.testing.capture_logs() as logs:
                third = await served.ask()
                await until(partial(len, logs))
            assert (logs[0]["event"], logs[0]["problem"]) == (
                "cannot accept connections",
                "Too many open files",
            )
            for client in (first, second, third):
                await client.stream.aclose()
            await until(lambda: not served.gateway.pool.states.total())


async def test_want_of_descriptors_is_logged_and_passes(monkeypatch):
    """The client waits, and is served once there are some again."""
    monkeypatch.setattr(module, "ACCEPT_PAUSE", 0.01)
    wanting = [True, True]

    def want(listener: socket.socket) -> object:
        if wanting:
            wanting.pop()
            raise OutOfResources("Too many open files in system")
        return accept_nowait(listener)

    monkeypatch.setattr(module, "accept_nowait", want)
    async with serving() as served:
        with structlog.testing.capture_logs() as logs:
            await (await served.ask()).head()
        assert [each["problem"] for each in logs] == ["Too many open files in system"] * 2


async def test_server_says_when_clients_should_come():
    """It accepts for a while after it is told to stop, as load balancers take time to notice."""
    async with serving(at_once=False) as served:
        gateway = served.gateway
        assert gateway.unready() == ["not listening yet"]
        await served.start()
        assert gateway.unready() == []
        gateway.stop(60.0)
        assert gateway.unready() == ["draining"]
        client = await served.ask("symbols=AAPL")
        await client.head()
        await client.frame()
        assert not served.ended.is_set()
        gateway.stop(0.0)
        _, reconnect = await client.frame()
        assert b'"type":"reconnect"' in reconnect
        await client.stream.aclose()
        with trio.fail_after(TIMEOUT):
            await served.ended.wait()
        assert served.listener.fileno() == -1
