"""The HTTP port: health, readiness, errors in one form, and hostile clients."""

import json
import signal
import socket
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, suppress
from http.client import HTTPConnection

import pytest

from server import __version__
from tests.gateway.wire import Client, refusal
from tests.processes import STOP_TIMEOUT, ServerProcess, make_token
from tests.stopwatch import Stopwatch

STALLED = 50


def test_health_and_readiness(server):
    """Both are 200 while the server serves, and must not be cached."""
    for path, body in (
        ("/healthz", {"status": "ok"}),
        ("/readyz", {"status": "ready", "reasons": []}),
    ):
        with urllib.request.urlopen(server.http_url + path) as response:
            assert json.load(response) == body
            assert response.headers["Cache-Control"] == "no-store"


def test_version_is_told(server):
    """The answer names the server and its version, without a token. `/` names the route."""
    status, body = server.get("/version")
    assert (status, json.loads(body)) == (200, {"name": "quotestream", "version": __version__})
    assert "/version" in {each["path"] for each in json.loads(server.get("/")[1])["routes"]}


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/index.html", 404, "not_found"),
        ("POST", "/", 405, "method_not_allowed"),
        ("GET", "/metrics/", 404, "not_found"),
        ("GET", "/ws/quotes", 404, "not_found"),
        ("POST", "/healthz", 405, "method_not_allowed"),
        ("DELETE", "/metrics", 405, "method_not_allowed"),
    ],
)
def test_errors_have_one_shape(server, method, path, status, code):
    """Every error is JSON with a code and a message. Nothing is redirected."""
    request = urllib.request.Request(server.http_url + path, method=method)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    with refused.value as response:
        body = json.load(response)
        assert response.headers["Content-Type"] == "application/json"
    assert (response.code, body["error"]["code"]) == (status, code)
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message"}
    assert body["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "words"),
    [
        ("GET", "/index.html", "GET / names the routes"),
        ("POST", "/healthz", "this path takes GET and HEAD"),
        ("GET", "/instruments/NOSUCH", "NOSUCH is not an instrument; GET /instruments?query="),
        ("GET", "/trades?symbol=nosuch", "NOSUCH is not an instrument; GET /instruments?query="),
    ],
)
def test_error_says_what_there_is(server, method, path, words):
    """The caller learns what to ask for instead. No cache keeps the answer."""
    credentials = {"Authorization": f"Bearer {make_token()}"}
    request = urllib.request.Request(server.http_url + path, method=method, headers=credentials)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    with refused.value as response:
        assert words in json.load(response)["error"]["message"]
        assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", ["/quotes?symbols=AAPL", "/instruments/AAPL", "/ops/clients"])
def test_two_tokens_are_none(server, path):
    """A proxy may have checked the other one."""
    connection = HTTPConnection(*server.http_address)
    connection.putrequest("GET", path)
    for user in ("one", "two"):
        connection.putheader("Authorization", f"Bearer {make_token(user, role='admin')}")
    connection.endheaders()
    with connection.getresponse() as response:
        error = json.load(response)["error"]
    connection.close()
    assert (response.status, error["code"]) == (400, "bad_request")
    assert error["message"].startswith("Authorization")


def test_upgrade_is_refused_in_the_same_shape(server):
    """A WebSocket request here is refused with a hint at the other port."""
    answer = refusal(server.http_url.replace("http:", "ws:") + "/healthz")
    assert answer.verdict == (404, "not_found")


def test_stalled_clients_hinder_nobody(tmp_path):
    """Unfinished requests and unread answers delay neither other clients nor the stop."""
    with ServerProcess(tmp_path) as server, ExitStack() as clients:
        for number in range(STALLED):
            client = socket.create_connection(server.http_address)
            clients.enter_context(client)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            request = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"
            client.sendall(request * 100 if number % 2 else request[:20])
        watch = Stopwatch(server.process.pid)
        assert server.get("/healthz")[0] == 200
        assert watch.seconds < 1
        start = time.monotonic()
        server.stop()
        assert time.monotonic() - start < 10
        assert server.log_lines()[-1]["event"] == "stopped"


def test_last_prices_are_kept_whoever_holds_the_stop_up(tmp_path):
    """Slow clients of this port do not delay the write of last prices."""
    variables = {"PRICE_UPDATE_INTERVAL": "50ms", "PRICE_WRITE_INTERVAL": "1h"}
    with ServerProcess(tmp_path, **variables) as server, ExitStack() as clients:
        stalled = clients.enter_context(socket.socket())
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        stalled.connect(server.http_address)
        stalled.setblocking(False)
        with suppress(BlockingIOError):
            stalled.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 5000)
        with Client(server, "AAPL") as client:
            client.receive()
            client.move()
        assert server.stop() == 0
        assert server.log_lines()[-1]["event"] == "stopped"
    with ServerProcess(tmp_path) as server:
        [quote] = server.ask("/quotes?symbols=AAPL")[1]
        assert quote["version"] >= client.versions["AAPL"]


def test_request_in_progress_is_answered_at_a_stop(tmp_path, postgres):
    """Even a request that waits for a silent database gets its answer."""
    with ServerProcess(tmp_path, DATABASE_URL=postgres.url()) as server:
        postgres.freeze()
        asking = HTTPConnection(*server.http_address)
        credentials = {"Authorization": f"Bearer {make_token()}"}
        asking.request("GET", "/market-data?symbols=IBM", headers=credentials)
        for _ in range(3):  # whoever came later is answered: that request is under way
            assert server.get("/healthz")[0] == 200
        server.process.send_signal(signal.SIGTERM)
        with asking.getresponse() as response:
            assert json.load(response)["error"]["code"] == "store_unavailable"
            assert response.headers["Connection"] == "close"
        assert server.process.wait(STOP_TIMEOUT) == 0
