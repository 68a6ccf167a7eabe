"""The order of a stop: red first, open for DRAIN_DELAY, then closed; ten seconds in all."""

import signal
import time

import pytest

from server.process.signals import hard_exit_after
from tests.cli.command import complaint
from tests.cli.test_stop import AT_ONCE, STOP_LIMIT, stubborn_clients
from tests.gateway.wire import Client, RawClient, head, target
from tests.processes import STOP_TIMEOUT, ServerProcess, eventually
from tests.stopwatch import Stopwatch

DEFAULT = ""
"""An empty variable counts as not set."""


def test_clients_may_come_for_two_seconds_after_readyz_turned_red(tmp_path):
    """New clients are served, and sent away with the earlier ones."""
    with ServerProcess(tmp_path, DRAIN_DELAY=DEFAULT, PRICE_UPDATE_INTERVAL="50ms") as server:
        assert server.get("/readyz") == (200, '{"status":"ready","reasons":[]}')
        with Client(server, "AAPL") as before:
            watch, start = Stopwatch(server.process.pid), time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            eventually(lambda: server.get("/readyz")[0] == 503)
            with Client(server, "AAPL") as late:
                late.receive()
                late.move()
                for client in (before, late):
                    code, messages = client.read_to_end()
                    assert (code, messages[-1]["type"]) == (1001, "reconnect")
                assert time.monotonic() - start > 1.9
        assert watch.wait_for_end(server.process, STOP_TIMEOUT) == 0
        assert watch.seconds < STOP_LIMIT


def test_readyz_is_red_until_the_end_of_the_drain(tmp_path):
    """Also while the server waits for clients that do not answer, when the streaming port is closed."""
    with ServerProcess(tmp_path) as server, RawClient(server, head(target("*"))):
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: closed(server))
        assert server.get("/readyz") == (503, '{"status":"unready","reasons":["draining"]}')
        assert server.process.wait(STOP_TIMEOUT) == 0


def test_handshake_under_way_when_the_port_closes_is_let_in(tmp_path):
    """The client is told to come back as all others are; it is not refused."""
    request = head(target("AAPL"))
    with ServerProcess(tmp_path, DRAIN_DELAY="500ms") as server, RawClient(server) as other:
        with RawClient(server, request[:40]) as client:
            server.process.send_signal(signal.SIGTERM)
            assert other.read_closing() == 1001  # so the delay is over
            client.send(request[40:])
            assert client.read_head().startswith("HTTP/1.1 101 ")
            assert client.read_closing() == 1001
        other.send(b"\x88\x80\0\0\0\0")
        assert server.process.wait(STOP_TIMEOUT) == 0


def test_default_delay_is_within_the_ten_seconds(tmp_path):
    """The stop is in time although clients of both ports do all they can."""
    with ServerProcess(tmp_path, DRAIN_DELAY=DEFAULT, PRICE_UPDATE_INTERVAL="10ms") as server:
        with stubborn_clients(server):
            assert server.stop() == 0
            assert server.stop_seconds < STOP_LIMIT
        assert server.log_lines()[-1]["event"] == "stopped"


def test_ctrl_c_is_immediate_where_no_load_balancer_asks(tmp_path):
    """A developer need not wait. SIGTERM, and a load balancer that asked `/readyz`, get the delay."""
    with ServerProcess(tmp_path, DRAIN_DELAY="3s") as server, Client(server, "AAPL") as client:
        assert server.stop(signal.SIGINT) == 0
        assert server.stop_seconds < AT_ONCE
        assert client.read_to_end()[0] == 1001
    with ServerProcess(tmp_path, DRAIN_DELAY="1s") as server:
        server.get("/readyz")
        start = time.monotonic()
        assert server.stop(signal.SIGINT) == 0
        assert time.monotonic() - start > 0.9


def test_longer_delay_moves_the_hard_exit():
    """By the time that it is longer than the default."""
    assert [hard_exit_after(delay) for delay in (0, 2, 10)] == [9, 9, 17]


@pytest.mark.parametrize("value", ["-1s", "soon", "9" * 400])
def test_delay_that_cannot_be_is_named(tmp_path, value):
    """Zero is allowed; a text that is not a time is refused."""
    line = complaint(tmp_path, "serve", DRAIN_DELAY=value)
    assert line.startswith(
        f"quotestream: DRAIN_DELAY={value!r} is not allowed: a duration from zero"
    )


def closed(server: ServerProcess) -> bool:
    """Return whether the streaming port takes no more connections."""
    try:
        RawClient(server, b"").socket.close()
    except ConnectionRefusedError:
        return True
    return False
