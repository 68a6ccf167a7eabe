"""Clients that speak another protocol to the streaming port, or send nothing."""

import json
import socket
import ssl
from contextlib import ExitStack

import pytest

from server.gateway.request import NotHttp, _require_http
from tests.gateway.wire import Client, RawClient
from tests.processes import ServerProcess, eventually
from tests.stopwatch import Stopwatch

SILENT = 40

AT_ONCE = 2.0
"""Seconds in which the server closes such a client, on a busy machine."""

OTHERS = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
    b"SSH-2.0-libssh",
    b"EHLO example.com\r\n",
    b"PING\r\n",
    b"*1\r\n$4\r\nPING\r\n",
    b"\x00\x00\x00\x08\x04\xd2\x16/",
    b"PROXY TCP4 203.0.113.1 203.0.113.2 1 2\r\n",
    b"\x81\x85\x01\x02\x03\x04",
    b"\xff" * 100,
    b"A" * 100,
]

HEAD = b"GET /ws/quotes?symbols=AAPL HTTP/1.1\r\nHost: a\r\nX: \xff\x00\n"


@pytest.mark.parametrize("data", OTHERS)
def test_what_is_no_http_is_known_by_its_beginning(data):
    """Another protocol is told from a request that is not complete yet."""
    with pytest.raises(NotHttp):
        _require_http(bytearray(data))


@pytest.mark.parametrize("data", [HEAD, b"\r\n" + HEAD, b"\n" + HEAD, b"M-SEARCH * HTTP/1.0\r"])
def test_every_part_of_a_request_may_become_one(data):
    """A request is not taken for another protocol, however it is cut into pieces."""
    for size in range(len(data) + 1):
        _require_http(bytearray(data[:size]))


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory):
    """A server that checks its health all the time."""
    folder = tmp_path_factory.mktemp("watched")
    with ServerProcess(folder, WS_HEALTH_CHECK_INTERVAL="200ms") as process:
        yield process


def test_tls_is_refused_at_once_and_the_operator_told(watched):
    """A TLS client is closed at once, and the log advises the operator."""
    context = ssl.create_default_context()
    with socket.create_connection(watched.address, 10) as sock:
        watch = Stopwatch(watched.process.pid)
        with pytest.raises(OSError, match=r"."):
            context.wrap_socket(sock, server_hostname="localhost")
        assert watch.seconds < AT_ONCE
    counted = 'market_data_connections_rejected_total{reason="tls_on_plain_port"}'
    eventually(lambda: watched.metric(counted) >= 1)
    line = watched.await_event("connection refused", reason="tls_on_plain_port")
    assert "ws://" in line["message"]
    assert line["address"] == "127.0.0.1"


def test_other_protocols_are_closed_at_once(watched):
    """The server does not wait for a request that cannot come, and serves other clients."""
    counted = 'market_data_connections_rejected_total{reason="not_http"}'
    before = watched.metric(counted)
    with Client(watched, "AAPL") as witness:
        for data in OTHERS[1:]:
            watch = Stopwatch(watched.process.pid)
            with RawClient(watched, data) as client:
                assert client.is_over()
                assert client.received == b""
            assert watch.seconds < AT_ONCE
        assert witness.is_answered()
    assert watched.metric(counted) == before + len(OTHERS) - 1


def test_silent_connections_leave_the_service_healthy(watched):
    """Forty silent clients, and as many of another protocol, do not make the server unhealthy."""
    with ExitStack() as clients:
        for _ in range(SILENT):
            clients.enter_context(RawClient(watched, b""))
            clients.enter_context(RawClient(watched, OTHERS[0]))
        timeouts = 'market_data_connections_rejected_total{reason="handshake_timeout"}'
        eventually(lambda: watched.metric(timeouts) == SILENT, timeout=15)
    status = json.loads(watched.get("/health")[1])
    checked = len(status["checks"])
    eventually(lambda: len(json.loads(watched.get("/health")[1])["checks"]) > min(checked + 2, 99))
    report = watched.ask("/health", role="admin")[1]
    for each in ("refusals", "errors", "clients"):
        assert report["components"][each]["status"] == "healthy"
    # Other programs may keep the machine busy, which makes the event loop late.
    changes = [
        line
        for line in watched.events("health changed")
        if any(not reason.startswith("event_loop: ") for reason in line["reasons"])
    ]
    assert not [line for line in changes if line["health"] in ("unhealthy", "critical")]
    assert "never finished a handshake" in report["components"]["clients"]["detail"]
