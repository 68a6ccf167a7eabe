"""`quotestream watch`: the first real client, on a terminal and in a pipe."""

import json
import os
import pty
import signal
import socket
import subprocess
import time

import pytest

from tests.cli.command import COMMAND, TIMEOUT, complaint, environment, run
from tests.processes import SECRET, ServerProcess, make_token


def watch(server: ServerProcess, *symbols: str) -> list[str]:
    """The command line."""
    return [*COMMAND, "watch", *symbols, "--url", server.quotes_url, "--token", make_token()]


def read_until(terminal: int, word: str) -> str:
    """What a terminal shows until `word` is in it."""
    shown = b""
    deadline = time.monotonic() + TIMEOUT
    while word.encode() not in shown:
        assert time.monotonic() < deadline, shown.decode()
        shown += os.read(terminal, 65536)
    return shown.decode()


def test_table_is_live_and_ctrl_c_ends_it(server, tmp_path):
    """Names, prices, the connection's state, what does not exist; then no traceback."""
    terminal, other_end = pty.openpty()
    environ = environment(COLUMNS="120", LINES="40", TERM="xterm")
    process = subprocess.Popen(
        watch(server, "AAPL", "MSFT", "NOPE"), cwd=tmp_path, env=environ,
        stdin=other_end, stdout=other_end, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(other_end)
    shown = read_until(terminal, "live")
    assert "Apple" in shown
    assert "Microsoft" in shown
    read_until(terminal, "no such symbol: NOPE")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=TIMEOUT)
    os.close(terminal)
    assert process.returncode in (0, 130)
    assert "Traceback" not in errors


def test_lines_in_a_pipe_and_unknown_symbols_are_told(server, tmp_path):
    """One line a move; what the server says of other things is shown, too."""
    with subprocess.Popen(
        watch(server, "AAPL", "NOPE"), cwd=tmp_path, env=environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(6)]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=TIMEOUT)
    assert sum(" AAPL " in line for line in lines) == 5
    (other,) = (json.loads(line) for line in lines if " AAPL " not in line)
    assert (other["code"], other["symbols"]) == ("unknown_symbol", ["NOPE"])
    assert process.returncode == 130
    assert not errors


def test_refusal_is_one_line(server, tmp_path):
    """A token that is not good, symbols that do not exist."""
    url = ["--url", server.quotes_url]
    line = complaint(tmp_path, "watch", "AAPL", *url, "--token", "bad")
    assert "token" in line
    line = complaint(tmp_path, "watch", "NOPE", *url, "--token", make_token())
    assert "none of the symbols exists" in line


def test_reader_that_has_had_enough_ends_it(server, tmp_path):
    """`watch | head -1` ends at the next line, silently."""
    with subprocess.Popen(
        watch(server, "AAPL", "MSFT"), cwd=tmp_path, env=environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(TIMEOUT) == 128 + signal.SIGPIPE
        assert process.stderr is not None
        assert not process.stderr.read()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--url", "ws://127.0.0.1:99999/x"], ["--url", "ws://[::1"], ["--url", "garbage"],
        ["--url", "ws://"], ["--url", "http://127.0.0.1/"], ["--url", "ws://a..b/"],
        ["--url", "ws://a/b c"], ["--url", "ws://a/ws/quotes?symbols=AAPL"], ["--token", "a\nb"],
    ],
)  # fmt: skip
def test_bad_argument_is_said_at_once(tmp_path, arguments):
    """An address or a token that cannot be is not tried."""
    done = run(tmp_path, "watch", "AAPL", *arguments)
    assert done.returncode == 2
    assert f"error: argument {arguments[0]}: " in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_server_of_another_kind_is_told_of(tmp_path):
    """What answers with anything but HTTP is no reason for a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"ws://127.0.0.1:{listener.getsockname()[1]}/ws/quotes"
        with subprocess.Popen(
            [*COMMAND, "watch", "AAPL", "--url", url, "--token", "x"],
            cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"-ERR unknown command\r\n\r\n")
            assert process.stdout is not None
            assert "does not speak HTTP" in process.stdout.readline()
            process.kill()


def test_server_that_is_not_there_is_tried_again(tmp_path):
    """It says that it waits, and shows quotes once there is a server."""
    with ServerProcess(tmp_path) as server:
        port = str(server.address[1])
    with subprocess.Popen(
        watch(server, "AAPL"), cwd=tmp_path, env=environment(JWT_SECRET=SECRET),
        stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        lost = json.loads(process.stdout.readline())
        assert port in lost["problem"]
        assert lost["retry_in"] >= 0
        with ServerProcess(tmp_path, WS_PORT=port):
            line = process.stdout.readline()
            while "retry_in" in line:
                line = process.stdout.readline()
            assert " AAPL " in line
            process.kill()
