"""SIGTERM and Ctrl-C: the server ends within ten seconds, at the second signal at once."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.services import free_port
from tests.cli.command import COMMAND, TIMEOUT, environment
from tests.gateway.wire import RawClient, head, target
from tests.processes import SECRET, FreshServer, ServerProcess, eventually
from tests.stopwatch import Stopwatch

STOP_LIMIT = 10.0

AT_ONCE = 2.0


@contextmanager
def stubborn_clients(server: ServerProcess) -> Iterator[None]:
    """One reads but never answers, one never reads, one is stuck in its request, one has sent nothing;
    on the other port, one has asked for half a page.
    """
    with (
        RawClient(server),
        RawClient(server, head(target("*"))),
        RawClient(server, head(target())[:50]),
        RawClient(server, b""),
        socket.create_connection(server.http_address) as http,
    ):
        http.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\n")
        yield


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stubborn_clients_do_not_hold_the_server_up(tmp_path, number):
    """The exit is clean and in time, and the ports are free at once."""
    ports = {"WS_PORT": str(free_port()), "HTTP_PORT": str(free_port())}
    with FreshServer(tmp_path, PRICE_UPDATE_INTERVAL="10ms", **ports) as server:
        with stubborn_clients(server):
            assert server.stop(number) == 0
            assert server.stop_seconds < STOP_LIMIT
        lines = server.log_lines()
        assert lines[-1]["event"] == "stopped"
        assert not any(line["level"] == "error" for line in lines)
    with FreshServer(tmp_path, **ports) as server:
        assert server.get("/healthz")[0] == 200


def test_draining_is_told_and_a_second_signal_ends_it_at_once(tmp_path):
    """While the server waits for a client, `/readyz` says why no other should come."""
    with FreshServer(tmp_path) as server, stubborn_clients(server):
        assert server.get("/readyz") == (200, '{"status":"ready","reasons":[]}')
        server.process.send_signal(signal.SIGTERM)
        watch = Stopwatch(server.process.pid)
        while server.get("/readyz")[0] != 503:
            assert watch.seconds < AT_ONCE
        assert server.get("/readyz") == (503, '{"status":"unready","reasons":["draining"]}')
        assert server.get("/healthz")[0] == 200
        assert server.stop() == 128 + signal.SIGTERM
        assert server.stop_seconds < AT_ONCE


def test_stop_right_after_the_start_is_not_lost(tmp_path, redis):
    """Five times: whether the signal comes while Redis is being connected is a matter of luck."""
    for _ in range(5):
        with FreshServer(tmp_path, REDIS_URL=redis.url) as server:
            assert server.stop() == 0
            assert server.stop_seconds < AT_ONCE


@pytest.mark.parametrize("command", ["serve", "import", "migrate"])
def test_interrupted_while_it_waits_for_the_database(tmp_path, postgres, command):
    """Ctrl-C ends a start, or another command, at once and without a traceback."""
    postgres.freeze()
    with subprocess.Popen(
        [*COMMAND, command],
        cwd=tmp_path,
        env=environment(DATABASE_URL=postgres.url(), JWT_SECRET=SECRET, WS_PORT="0", HTTP_PORT="0"),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        # Remote port and state (proc(5), /proc/net/tcp).
        established = f":{postgres.port:04X} 01 "
        try:
            eventually(lambda: established in Path("/proc/net/tcp").read_text())
            watch = Stopwatch(process.pid)
            process.send_signal(signal.SIGINT)
            assert watch.wait_for_end(process, STOP_LIMIT) == 128 + signal.SIGINT
            assert watch.seconds < AT_ONCE
            _, said = process.communicate()
        finally:
            process.kill()
    assert "Traceback" not in said


def test_handing_over_needs_a_cluster(tmp_path):
    """SIGUSR1 does nothing if there is no other instance; the log says so."""
    with FreshServer(tmp_path) as server:
        server.process.send_signal(signal.SIGUSR1)
        eventually(lambda: "nothing to hand over" in server.log.read_text())
        assert server.get("/readyz")[0] == 200
        assert server.stop() == 0


def test_ctrl_c_while_it_is_imported(tmp_path):
    """The command ends without a traceback before it has started anything."""
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "server", "--version"],
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    while " trio.abc\n" not in (line := process.stderr.readline()):
        assert line, "it was not imported"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 128 + signal.SIGINT
    assert "Traceback" not in errors
