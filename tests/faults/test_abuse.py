"""Hostile crowds: their cost for the server, and for a client that behaves."""

import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.wire import PING, TEXT, Client, RawClient, frame, head, new_user, refusal, target
from tests.processes import ServerProcess, eventually, make_token
from tests.stopwatch import Stopwatch

HALF_OPEN = 10_000
SPARE_DESCRIPTORS = 200

PATIENCE = 3.0
"""Seconds in which a client that behaves gets in and gets its answer, also during an attack."""


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[ServerProcess]:
    """Start a server of the test's own, with moving prices."""
    with ServerProcess(tmp_path, PRICE_UPDATE_INTERVAL="100ms") as server:
        yield server


def count_files(folder: Path) -> int:
    return sum(1 for _ in folder.iterdir())


def assert_serves(server: ServerProcess) -> None:
    """Check that a new client gets in, gets a quote, and gets an answer, soon."""
    watch = Stopwatch(server.process.pid)
    with Client(server, "AAPL") as client:
        assert client.receive()["type"] == "quotes_patch"
        assert client.is_answered()
    assert watch.seconds < PATIENCE


def test_half_open_handshakes_shut_nobody_out(busy, descriptors):
    """Ten thousand connections begin a request and never end it. Other clients come and go as
    before. The server closes each such connection after five seconds, and nothing is left.
    """
    crowd_size = min(HALF_OPEN, descriptors - SPARE_DESCRIPTORS)
    crowd: list[socket.socket] = []
    folder = Path(f"/proc/{busy.process.pid}/fd")
    before = count_files(folder)
    try:
        with Client(busy, "AAPL") as witness:
            for number in range(crowd_size):
                crowd.append(socket.create_connection(busy.address, 10))
                crowd[-1].sendall(b"GET /ws/quotes HTTP/1.1\r\nHost: x\r\nX-Slow: ")
                if number % (crowd_size // 4) == 0:
                    assert_serves(busy)
            assert_serves(busy)
            assert witness.is_answered()
            eventually(lambda: count_files(folder) <= before + 3, timeout=20)
            assert witness.is_answered()
        timed_out = busy.metric(
            'market_data_connections_rejected_total{reason="handshake_timeout"}'
        )
        assert timed_out == crowd_size
        assert busy.metric('market_data_connections{state="connecting"}') == 0
    finally:
        for sock in crowd:
            sock.close()


def test_handshakes_that_come_too_fast_are_sent_away(tmp_path):
    """Beyond the rate the answer is 503 with a time to come back. Later clients are let in again."""
    with ServerProcess(tmp_path, WS_HANDSHAKE_RATE="1") as server:
        answers = [refused_or_none(server) for _ in range(15)]
        refused = [answer for answer in answers if answer is not None]
        assert 3 <= len(refused) <= 5
        assert {answer.verdict for answer in refused} == {(503, "at_capacity")}
        assert all(1 <= int(answer.headers["Retry-After"]) <= 5 for answer in refused)
        eventually(lambda: refused_or_none(server) is None)


def refused_or_none(server: ServerProcess):
    with RawClient(server, head(target())) as client:
        client.socket.settimeout(5)
        while b"\r\n\r\n" not in client.received:
            client._receive()
        return None if client.received.startswith(b"HTTP/1.1 101") else client.answer()


@pytest.mark.parametrize(
    "flood",
    [
        frame(PING, b"x") * 400,
        frame(TEXT, b'{"action":"ping"}') * 400,
        b"".join(
            frame(TEXT, b'{"action":"%b","symbols":["AAPL"]}' % action)
            for action in (b"subscribe", b"unsubscribe") * 200
        ),
    ],
    ids=["pings", "commands", "subscription churn"],
)
def test_floods_end_with_1008_and_cost_nobody(busy, flood):
    """The server closes ten clients that flood it, and serves a client beside them all the time."""
    with Client(busy, "AAPL") as witness:
        flooders = [RawClient(busy) for _ in range(10)]
        try:
            for flooder in flooders:
                flooder.send(flood)
            assert witness.is_answered()
            assert_serves(busy)
            eventually(
                lambda: busy.metric('market_data_connections_closed_total{code="1008"}') == 10
            )
        finally:
            for flooder in flooders:
                flooder.socket.close()
        eventually(lambda: busy.metric("market_data_subscriptions") == 1)


def test_asking_for_everything_over_and_over_is_too_fast(busy):
    """The server carries out only a few at once of the commands that each bring all quotes."""
    with RawClient(busy, head(target("*"))) as client:
        client.read_head()
        start = time.monotonic()
        client.send(frame(TEXT, b'{"action":"resync","symbols":["*"]}') * 40)
        answers = Counter[str]()
        while answers.total() < 40:
            message = client.read_message()
            if message["type"] != "quotes_patch":
                answers[message["type"]] += 1
    assert 5 < answers["ack"] < 20 * max(1.0, time.monotonic() - start)


def test_pool_that_is_full_asks_for_no_token(tmp_path):
    """With all places taken the answer is 503 for every token. A freed place is given to the next
    client.
    """
    with ServerProcess(tmp_path, WS_MAX_CONNECTIONS="2") as server:
        with Client(server), Client(server):
            assert refusal(server.url(token="nonsense")).verdict == (503, "at_capacity")
        eventually(lambda: server.metric('market_data_connections{state="active"}') == 0)
        with Client(server, token=make_token(new_user())) as client:
            assert client.is_answered()
