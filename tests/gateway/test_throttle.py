"""Clients that ask for less get each symbol's current quote once an interval. Others get all."""

import time

import pytest

from tests.gateway.wire import Client, is_move, new_user, refusal
from tests.processes import eventually, make_token
from tests.stopwatch import Stopwatch


def throttled(server, interval: str, symbols: str = "AAPL") -> Client:
    return Client(server, f"{symbols}&interval={interval}", token=make_token(new_user()))


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        ("1s", 1.0),
        ("250ms", 0.25),
        (0.3, 0.5),
        (45, 60.0),
        ("1h", 60.0),
        (0, 0.0),
        ("0", 0.0),
        (5e-05, 0.25),
        (1e16, 60.0),
    ],
)
def test_granted_interval_is_echoed(server, asked, granted):
    """The `ack` has the interval that is granted: the next longer one there is."""
    with Client(server) as client:
        answer = client.ask("throttle", interval=asked, id=7)
        ack = {"type": "ack", "action": "throttle", "symbols": [], "id": 7, "interval": granted}
        assert answer == ack


@pytest.mark.parametrize("asked", ["soon", "-1s", -1, ""])
def test_interval_must_be_a_duration(server, asked):
    """Anything else is a bad command, or a bad request as a parameter."""
    with Client(server) as client:
        answer = client.ask("throttle", interval=asked, id=7)
        assert (answer["code"], answer["id"]) == ("bad_command", 7)
    if asked:
        url = server.url(f"AAPL&interval={asked}", make_token(new_user()))
        assert refusal(url).verdict == (400, "bad_request")


def test_throttled_client_gets_whole_quotes_at_its_pace(server):
    """With ten moves a second and an interval of one, a whole, current quote comes each second."""
    with throttled(server, "1s") as client, Client(server, "AAPL") as quick:
        assert client.receive()["interval"] == 1.0
        client.receive()
        start, first = time.monotonic(), client.versions["AAPL"]
        watch = Stopwatch(server.process.pid)
        for _ in range(3):
            message = client.receive()
            assert not is_move(message)
        assert time.monotonic() - start > 1.5
        assert watch.seconds < 3.5
        assert client.versions["AAPL"] - first > 12
        while quick.versions.get("AAPL", 0) < client.versions["AAPL"]:
            # This checks that no version is missing.
            quick.receive()
        if quick.versions["AAPL"] == client.versions["AAPL"]:
            assert quick.quotes == client.quotes


def test_answers_are_not_throttled(server):
    """Commands are answered at once, also while quotes are held back."""
    with throttled(server, "60s") as client:
        client.receive()
        watch = Stopwatch(server.process.pid)
        for _ in range(5):
            assert client.is_answered()
        added = client.ask("subscribe", symbols=["MSFT"])
        assert added["type"] == "ack"
        # All clients with this interval get their held quotes together, perhaps just now.
        while "MSFT" not in client.quotes:
            client.receive()
        removed = client.ask("unsubscribe", symbols=["AAPL", "MSFT"])
        assert removed["type"] == "ack"
        while client.quotes:
            client.receive()
        assert watch.seconds < 3


def test_throttle_ends_where_the_client_wants(server):
    """With 0 the pending quote comes, then each move again, and no version is missing."""
    with throttled(server, "60s") as client:
        client.receive()
        client.receive()
        before = client.versions["AAPL"]
        held_back = server.metric("market_data_conflated_total") + 5
        eventually(lambda: server.metric("market_data_conflated_total") >= held_back)
        client.send("throttle", interval=0)
        # The acknowledgement and the pending quote come first.
        while not is_move(client.receive()):
            pass
        assert client.versions["AAPL"] > before + 5
        for _ in range(5):
            client.move()
