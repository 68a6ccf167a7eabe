"""Connections as the gateway serves them: their answers, tasks, sockets and places."""

import socket
from functools import partial
from typing import Any, cast

import pytest
import structlog.testing
import trio

from server.fanout.frame import deflate, text_frame
from server.gateway import gateway as module
from server.gateway.closing import Close
from server.gateway.deflate import ANSWER
from server.gateway.session import Session
from server.gateway.sockets import OutOfResources, accept_nowait
from tests.fanout.peer import publish
from tests.gateway.harness import READ_CUSHION
from tests.gateway.serving import RSV1, Broken, Client, Served, serving, until
from tests.gateway.wire import PING, PONG, TEXT, frame, head
from tests.processes import TIMEOUT, make_token


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
