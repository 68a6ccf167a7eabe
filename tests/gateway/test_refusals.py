"""Handshakes that the gateway refuses: their counts, logs, bodies and addresses."""

import socket
import struct
from ipaddress import ip_network

import pytest
import structlog.testing

from server.gateway import gateway as module
from server.gateway.addresses import Proxies
from server.gateway.request import NOT_HTTP_ADVICE
from tests.gateway.serving import serving, until
from tests.gateway.wire import head
from tests.processes import make_token


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
