"""A server goes on, stops and exits although its standard output and error take nothing."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest

from bench.services import free_port
from tests.cli.command import COMMAND, TIMEOUT, environment
from tests.gateway.wire import Client, head, target
from tests.processes import START_TIMEOUT, STOP_TIMEOUT, ServerProcess, eventually, make_token
from tests.stopwatch import Stopwatch
from tests.workers.host import Host, end_of

AT_ONCE = 3.0
"""Seconds for an action that has no reason to wait, on a busy machine."""


class Mute(ServerProcess):
    """A server on known ports: its output cannot be read. `redirection` is the shell's."""

    def __init__(self, folder: Path, redirection: str, **variables: str) -> None:
        super().__init__(folder, WS_PORT=str(free_port()), HTTP_PORT=str(free_port()), **variables)
        self._redirection = redirection

    def __enter__(self) -> Self:
        command = f"exec {' '.join(COMMAND)} serve {' '.join(self.arguments)} {self._redirection}"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ["/bin/sh", "-c", command],
                cwd=self._folder,
                env=environment(**self._variables),
                text=True,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        self.quotes_url = f"ws://127.0.0.1:{self._variables['WS_PORT']}/ws/quotes"
        self.http_url = f"http://127.0.0.1:{self._variables['HTTP_PORT']}"
        eventually(self._is_ready, START_TIMEOUT)
        return self

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.get("/readyz")[0] == 200
        except OSError:
            return False


BROKEN = {
    "full disk": ">/dev/full 2>/dev/full",
    "full disk for the log": "2>/dev/full",
    "closed": ">&- 2>&-",
    "closed output": ">&-",
    "nothing open at all": "<&- >&- 2>&-",
    "closed pipe": "2>&1 | true",
}


@pytest.mark.parametrize("redirection", BROKEN.values(), ids=BROKEN)
def test_server_streams_and_stops_though_nothing_can_be_said(tmp_path, redirection):
    """Prices move, a refusal is logged without harm, and the stop is clean."""
    # The shell would be the process that gets the signal.
    if "|" in redirection:
        redirection = f"2>{tmp_path / 'pipe'} >&2"
        os.mkfifo(tmp_path / "pipe")
        reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    else:
        reader = -1
    with Mute(tmp_path, redirection, PRICE_UPDATE_INTERVAL="50ms") as server:
        if reader >= 0:
            os.close(reader)
        assert server.get("/nothing")[0] == 404
        with socket.create_connection(server.address) as refused:
            refused.sendall(head(target(token="bad")))
            assert refused.recv(100).startswith(b"HTTP/1.1 401 ")
        with Client(server, "AAPL") as client:
            client.receive()
            client.move()
            server.process.send_signal(signal.SIGTERM)
            code, messages = client.read_to_end()
            assert (code, messages[-1]["type"]) == (1001, "reconnect")
        assert server.process.wait(STOP_TIMEOUT) == 0


@contextmanager
def full_pipe() -> Iterator[tuple[int, int]]:
    """Both ends of a full pipe."""
    reader, writer = os.pipe()
    try:
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
        os.write(writer, b"x" * fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ))
        yield reader, writer
    finally:
        os.close(reader)
        os.close(writer)


def test_pipe_that_nobody_reads_freezes_nothing(tmp_path):
    """The server streams and stops although its output cannot be written."""
    with full_pipe() as (reader, writer):
        redirection = f">/proc/{os.getpid()}/fd/{writer} 2>&1"
        with Mute(tmp_path, redirection, PRICE_UPDATE_INTERVAL="50ms") as server:
            with Client(server, "AAPL") as client:
                client.receive()
                client.move()
            assert server.stop() == 0
            assert server.stop_seconds < AT_ONCE
        assert os.read(reader, 4096) == b"x" * 4096


def test_log_goes_on_once_there_is_room(tmp_path):
    """Waiting lines come whole and in order. The number of dropped lines is logged."""
    program = """
import logging, sys, time
from server.process import output
from server.ops.logs import configure_logging
output.MAX_WAITING = 2000
output.take_over_output()
configure_logging("json", "info")
log = logging.getLogger("server.test")
for number in range(100):
    log.warning("line %d", number)
print(output.lost_lines(), file=open("lost", "w"), flush=True)
sys.stdin.readline()
log.warning("the last line")
"""
    with full_pipe() as (reader, writer):
        with subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            stdin=subprocess.PIPE,
            stderr=writer,
            text=True,
        ) as process:
            lost = tmp_path / "lost"
            eventually(lambda: lost.exists() and lost.read_text().endswith("\n"), START_TIMEOUT)
            said = os.read(reader, 4096)
            assert said == b"x" * 4096
            said = os.read(reader, 4096)
            assert b'"line 0"' in said
            process.communicate("\n", timeout=TIMEOUT)
        os.set_blocking(reader, False)
        while b"the last line" not in said:
            said += os.read(reader, 4096)
    lines = said.decode().splitlines()
    dropped = int(lost.read_text())
    assert 50 < dropped < 100
    assert sum('"event":"line ' in line.replace(": ", ":") for line in lines) == 100 - dropped
    assert any("lines of output were lost" in line and f"{dropped}" in line for line in lines)


@pytest.mark.parametrize("redirection", [">/dev/full 2>/dev/full", ">&- 2>&-", "full pipe"])
def test_second_signal_ends_it_at_once_though_nothing_can_be_said(tmp_path, redirection):
    """The server waits for a client that does not answer; the second signal ends that."""
    with full_pipe() as (_, writer):
        if redirection == "full pipe":
            redirection = f">/proc/{os.getpid()}/fd/{writer} 2>&1"
        with (
            Mute(tmp_path, redirection, DRAIN_DELAY="30s") as server,
            socket.create_connection(server.address) as client,
        ):
            client.sendall(head(target("AAPL")))
            assert client.recv(100).startswith(b"HTTP/1.1 101 ")
            server.process.send_signal(signal.SIGTERM)
            eventually(lambda: server.get("/readyz")[0] == 503)
            assert server.stop() == 128 + signal.SIGTERM
            assert server.stop_seconds < AT_ONCE


class MuteHost(Mute):
    """A supervisor with two workers, whose output nobody reads."""

    arguments = ("--workers", "2")


def test_workers_and_their_supervisor_end_though_nothing_can_be_said(tmp_path, redis):
    """They stream, stop cleanly at one signal, and stop at once at two."""
    with MuteHost(tmp_path, ">/dev/full 2>/dev/full", REDIS_URL=redis.url) as host:
        with Client(host, "AAPL") as client:
            assert client.receive()["type"] == "quotes_patch"
        assert host.stop() == 0
    with MuteHost(tmp_path, ">&- 2>&-", REDIS_URL=redis.url, DRAIN_DELAY="30s") as host:
        host.process.send_signal(signal.SIGTERM)
        eventually(lambda: host.get("/readyz")[0] == 503)
        assert host.stop() == 128 + signal.SIGTERM
        assert host.stop_seconds < AT_ONCE


HANGING = """
import re, signal, sys, time, trio
from server.process import signals
async def main():
    signals.LAST_WORDS = float(sys.argv[2])
    signals.Signals(0.3)
    on_signal = signal.getsignal(signal.SIGTERM)
    def say(*arguments):
        on_signal(*arguments)
        print("taken", flush=True)
    signal.signal(signal.SIGTERM, say)
    print("ready", flush=True)
    if sys.argv[1] == "loop":
        while True:
            time.sleep(0.01)
    elif sys.argv[1] == "call":
        time.sleep(60)
    re.match("(a+)+b", "a" * 40)
trio.run(main)
"""


@pytest.mark.parametrize(
    ("where", "last_words", "code"),
    [("loop", 60, 1), ("call", 60, 1), ("interpreter", 0.3, -signal.SIGALRM)],
)
def test_event_loop_that_hangs_is_ended_at_the_first_signal(tmp_path, where, last_words, code):
    """Also a loop that lets no other thread run: the kernel's alarm needs none."""
    with subprocess.Popen(
        [sys.executable, "-c", HANGING, where, str(last_words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        watch = Stopwatch(process.pid)
        process.send_signal(signal.SIGTERM)
        assert watch.wait_for_end(process, STOP_TIMEOUT) == code
        assert watch.seconds < AT_ONCE


def test_event_loop_that_hangs_is_ended_at_the_second_signal(tmp_path):
    """The process ends at once, with that signal's code."""
    program = HANGING.replace("Signals(0.3)", "Signals(60)")
    with subprocess.Popen(
        [sys.executable, "-c", program, "call", "60"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        # Python would handle two waiting signals in the order of their numbers.
        assert process.stdout.readline() == b"taken\n"
        watch = Stopwatch(process.pid)
        process.send_signal(signal.SIGINT)
        assert watch.wait_for_end(process, STOP_TIMEOUT) == 128 + signal.SIGINT
        assert watch.seconds < AT_ONCE


def test_supervisor_kills_its_workers_at_a_second_signal(tmp_path, redis):
    """It logs the signal, ends with its code, and leaves no worker behind."""
    with Host(tmp_path, redis, 2, DRAIN_DELAY="30s") as host:
        host.process.send_signal(signal.SIGTERM)
        host.await_event("stopping", 3)
        assert host.stop(signal.SIGINT) == 128 + signal.SIGINT
        end_of(host.pids, AT_ONCE)
        assert host.await_event("workers are killed")["reason"] == "second signal"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["token --user ann", "migrate", "list"])
def test_command_whose_output_has_no_room_fails_in_one_line(tmp_path, command, unbuffered):
    """Neither a traceback nor a success: the disk is full."""
    variables = environment(XDG_STATE_HOME=str(tmp_path), PYTHONUNBUFFERED=unbuffered)
    done = subprocess.run(
        ["/bin/sh", "-c", f"exec {' '.join(COMMAND)} {command} >/dev/full"],
        cwd=tmp_path,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )
    assert done.returncode == 2
    complaint = "quotestream: the output cannot be written: No space left on device"
    assert done.stderr.splitlines()[-1] == complaint
    assert "Traceback" not in done.stderr


def test_watch_whose_output_has_no_room_fails_in_one_line(tmp_path):
    """Its connection does not hide the problem in a group of errors."""
    with ServerProcess(tmp_path) as server:
        command = f"watch AAPL --json --url {server.quotes_url} --token {make_token()} >/dev/full"
        done = subprocess.run(
            ["/bin/sh", "-c", f"exec {' '.join(COMMAND)} {command}"],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT,
        )
    assert done.returncode == 2
    assert done.stderr == "quotestream: the output cannot be written: No space left on device\n"
