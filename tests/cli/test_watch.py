"""`quotestream watch`: the first real client, on a terminal and in a pipe."""

import json
import signal
import socket
import termios
from pathlib import Path

import pytest

from bench.services import free_port
from tests.cli.command import COMMAND, TIMEOUT, complaint, piped, run
from tests.cli.terminal import Terminal
from tests.processes import SECRET, ServerProcess, make_token


def watch(server: ServerProcess, *symbols: str) -> list[str]:
    """Return the command line."""
    return [*COMMAND, "watch", *symbols, "--url", server.quotes_url, "--token", make_token()]


def test_table_is_live_and_ctrl_c_ends_it(server, tmp_path):
    """It shows names, prices, the connection's state and unknown symbols; Ctrl-C shows no traceback."""
    arguments = watch(server, "AAPL", "MSFT", "NOPE")
    with Terminal(arguments, tmp_path, size=(120, 40), TERM="xterm") as terminal:
        terminal.wait_for(lambda lines: "no such symbol: NOPE" in lines[-1] and "live" in lines[-1])
        shown = "\n".join(terminal.lines)
        assert "Apple" in shown
        assert "Microsoft" in shown
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.wait_until_ended() in (0, 130)
        assert terminal.process.stderr is not None
        assert "Traceback" not in terminal.process.stderr.read()


@pytest.mark.parametrize("form", ["json", "compact", "msgpack"])
def test_form_and_fields_of_the_messages_can_be_chosen(server, tmp_path, form):
    """In each form, the lines have the fields that were asked for, and no others."""
    lines = {}
    for fields in ([], ["--fields", "current_price"]):
        command = [*watch(server, "AAPL"), "--format", form, *fields]
        with piped(command, tmp_path) as it:
            lines[bool(fields)] = next(each for each in it.stdout if each[24:28] == "AAPL")
    assert "%" in lines[False]
    assert lines[True].split()[:2] == ["-", "AAPL"]
    assert len(lines[True].split()) == 3


def test_unknown_field_is_one_line(server, tmp_path):
    """The server's refusal names the fields that there are."""
    url = ["--url", server.quotes_url, "--token", make_token()]
    line = complaint(tmp_path, "watch", "AAPL", *url, "--fields", "mood")
    assert "current_price" in line


def test_keys_scroll_and_quit(server, tmp_path):
    """513 symbols in 24 lines: the arrow keys show the others, q ends it, the terminal is as before."""
    with Terminal(watch(server, "*"), tmp_path, size=(80, 24), TERM="xterm") as terminal:
        terminal.wait_for(lambda lines: "1-20 of 513" in lines[-1])
        terminal.press("\x1b[B")
        terminal.wait_for(lambda lines: "2-21 of 513" in lines[-1])
        terminal.press("\x1b[F")
        terminal.wait_for(lambda lines: "494-513 of 513" in lines[-1])
        terminal.press("q")
        assert terminal.wait_until_ended() == 0
        assert termios.tcgetattr(terminal.fd) == terminal.mode


def test_dumb_terminal_gets_lines(server, tmp_path):
    """It cannot move its cursor."""
    with Terminal(watch(server, "AAPL"), tmp_path, TERM="dumb") as terminal:
        terminal.wait_for(lambda _: b" AAPL " in terminal.raw)
        assert b"\x1b" not in terminal.raw


def test_lines_in_a_pipe_and_unknown_symbols_are_told(server, tmp_path):
    """Each move is a line; other messages of the server are shown, too."""
    with piped(watch(server, "AAPL", "NOPE"), tmp_path) as it:
        lines = [it.stdout.readline() for _ in range(6)]
        it.process.send_signal(signal.SIGINT)
        _, errors = it.process.communicate(timeout=TIMEOUT)
    assert sum(" AAPL " in line for line in lines) == 5
    (other,) = (json.loads(line) for line in lines if " AAPL " not in line)
    assert (other["code"], other["symbols"]) == ("unknown_symbol", ["NOPE"])
    assert it.process.returncode == 130
    assert not errors


@pytest.mark.parametrize("end", ["", "/", "/ws/quotes/"])
def test_address_may_leave_the_path_out(server, tmp_path, end):
    """As the library's may: an address has one stream of quotes."""
    url = server.quotes_url.removesuffix("/ws/quotes") + end
    with piped(
        [*COMMAND, "watch", "AAPL", "--url", url], tmp_path, QUOTESTREAM_TOKEN=make_token()
    ) as it:
        assert " AAPL " in it.stdout.readline()


def test_refusal_is_one_line(server, tmp_path):
    """The token is refused, or no symbol exists."""
    url = ["--url", server.quotes_url]
    line = complaint(tmp_path, "watch", "AAPL", *url, "--token", "bad")
    assert "token" in line
    line = complaint(tmp_path, "watch", "NOPE", *url, "--token", make_token())
    assert "none of the symbols exists" in line


def test_reader_that_has_had_enough_ends_it(server, tmp_path):
    """`watch | head -1` ends at the next line, silently."""
    with piped(watch(server, "AAPL", "MSFT"), tmp_path) as it:
        it.stdout.readline()
        it.stdout.close()
        assert it.process.wait(TIMEOUT) == 128 + signal.SIGPIPE
        assert not it.stderr.read()


@pytest.mark.parametrize("way", ["variable", ".env", "file", "standard input"])
def test_token_that_no_list_of_processes_shows(server, tmp_path, way):
    """The token comes from the environment, a file or standard input, never from an argument."""
    token = make_token()
    arguments = [*COMMAND, "watch", "AAPL", "--url", server.quotes_url]
    variables = {"QUOTESTREAM_TOKEN": token} if way == "variable" else {}
    (tmp_path / "token").write_text(f"{token}\n")
    if way == ".env":
        (tmp_path / ".env").write_text(f"QUOTESTREAM_TOKEN={token}\n")
    elif way != "variable":
        arguments += ["--token-file", "token" if way == "file" else "-"]
    with piped(arguments, tmp_path, **variables) as it:
        it.stdin.write(f"{token}\n")
        it.stdin.flush()
        assert " AAPL " in it.stdout.readline()
        assert token not in Path(f"/proc/{it.process.pid}/cmdline").read_text()


@pytest.mark.parametrize(
    ("arguments", "variables", "words"),
    [
        (["--token-file", "none"], {}, "--token-file: cannot read none: No such file"),
        (["--token-file", "."], {}, "--token-file: cannot read .: Is a directory"),
        (["--token-file", "empty"], {}, "--token-file: a token is one line"),
        (["--token-file", "words"], {}, "--token-file: a token is one line"),
        (["--token-file", "bytes"], {}, "--token-file: a token is one line"),
        ([], {"QUOTESTREAM_TOKEN": "canary canary"}, "QUOTESTREAM_TOKEN: a token is one line"),
        (
            [],
            {"QUOTESTREAM_TOKEN": "canary\nX-Canary: 1"},
            "QUOTESTREAM_TOKEN: a token is one line",
        ),
    ],
)
def test_token_that_is_none_is_said_at_once(tmp_path, arguments, variables, words):
    """One line, without the token."""
    (tmp_path / "empty").write_text("")
    (tmp_path / "words").write_text("canary canary\n")
    (tmp_path / "bytes").write_bytes(b"canary\xff")
    line = complaint(tmp_path, "watch", "AAPL", *arguments, **variables)
    assert words in line
    assert "canary" not in line


def test_misplaced_token_is_not_repeated(tmp_path):
    """The secret is in an address, in an unknown argument, or in place of a file's name."""
    token = make_token()
    for arguments in (
        ["--url", f"ws://host/ws/quotes?token={token}"],
        ["--url", f"ws://user:{SECRET}@:80/x"],
        ["--tokn", token],
        ["--token-file", token],
    ):
        done = run(tmp_path, "watch", "AAPL", *arguments)
        assert done.returncode == 2
        assert token.rpartition(".")[2] not in done.stderr
        assert SECRET not in done.stderr


def test_help_says_what_other_users_see(tmp_path):
    """`--token` still works, and its help names the better ways."""
    text = " ".join(run(tmp_path, "watch", "--help").stdout.split())
    assert "QUOTESTREAM_TOKEN" in text
    assert "Other users of this machine can see it" in text


@pytest.mark.parametrize(
    "arguments",
    [
        ["--url", "ws://127.0.0.1:99999/x"],
        ["--url", "ws://[::1"],
        ["--url", "garbage"],
        ["--url", "ws://"],
        ["--url", "http://127.0.0.1/"],
        ["--url", "ws://a..b/"],
        ["--url", "ws://a/b c"],
        ["--url", "ws://a/ws/quotes?symbols=AAPL"],
        ["--token", "a\nb"],
    ],
)
def test_bad_argument_is_said_at_once(tmp_path, arguments):
    """An impossible address or token is refused before anything connects."""
    done = run(tmp_path, "watch", "AAPL", *arguments)
    assert done.returncode == 2
    assert f"error: argument {arguments[0]}: " in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_server_of_another_kind_is_told_of(tmp_path):
    """An answer that is not HTTP causes no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"ws://127.0.0.1:{listener.getsockname()[1]}/ws/quotes"
        with piped([*COMMAND, "watch", "AAPL", "--url", url, "--token", "x"], tmp_path) as it:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"-ERR unknown command\r\n\r\n")
            assert "does not speak HTTP" in it.stdout.readline()


def test_server_that_is_not_there_is_tried_again(tmp_path):
    """It reports that it waits, and shows quotes once there is a server."""
    port = str(free_port())
    with ServerProcess(tmp_path, WS_PORT=port) as server:
        pass
    with piped(watch(server, "AAPL"), tmp_path, JWT_SECRET=SECRET) as it:
        lost = json.loads(it.stdout.readline())
        assert port in lost["problem"]
        assert lost["retry_in"] >= 0
        with ServerProcess(tmp_path, WS_PORT=port):
            line = it.stdout.readline()
            while "retry_in" in line:
                line = it.stdout.readline()
            assert " AAPL " in line
