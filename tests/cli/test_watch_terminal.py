"""`quotestream watch` as its user sees it: a real server, a real terminal, keys and sizes."""

import json
import os
import signal
import subprocess
import termios
import time
from pathlib import Path

import pytest

from bench.services import free_port
from server.client.painting import ENTER, LEAVE
from tests.cli.command import COMMAND, TIMEOUT, environment, piped, run
from tests.cli.terminal import Terminal
from tests.processes import ServerProcess, eventually, make_token


def command(server: ServerProcess, *arguments: str) -> list[str]:
    """Return the command line, which names both ports."""
    ports = ["--url", server.quotes_url, "--http-url", server.http_url]
    return [*COMMAND, "watch", *arguments, *ports, "--token", make_token()]


def rows(lines: list[str]) -> list[str]:
    """Return the symbols in the order of the table's rows."""
    table = lines[2 : next((n for n, line in enumerate(lines) if n > 1 and not line), len(lines))]
    return [line.strip("▸ ").split()[0] for line in table if line.strip()]


def is_live(lines: list[str]) -> bool:
    return "● live" in lines[-1]


def test_each_symbol_has_trend_age_and_arrow(server, tmp_path):
    """The state tells that nothing was missed and how far behind the screen is."""
    with Terminal(command(server, "AAPL", "MSFT"), tmp_path) as terminal:
        # An arrow goes when the price has stood still for a while.
        lines = terminal.wait_for(
            lambda lines: (
                "ms behind" in lines[-1]
                and "▁" in lines[2]
                and any(arrow in lines[2] for arrow in "▲▼")
            )
        )
        heading = lines[0].split()
        assert heading[:5] == ["symbol", "price", "%", "trend", "change"]
        assert "age" in heading
        assert "Apple" in lines[2]
        assert "nothing missed" in lines[-1]
        # There is room for the chart of the chosen symbol.
        terminal.wait_for(lambda lines: any("┤" in line for line in lines))


def test_keys_add_and_remove_symbols(server, tmp_path):
    """A symbol that does not exist is named, and the others go on."""
    with Terminal(command(server, "AAPL", "MSFT"), tmp_path) as terminal:
        terminal.wait_for(is_live)
        terminal.press("atslq\x7fa\r")
        terminal.wait_for(lambda lines: rows(lines) == ["AAPL", "MSFT", "TSLA"])
        # The added symbol is the chosen one.
        terminal.wait_for(lambda lines: lines[4].startswith("▸TSLA"))
        terminal.press("\x1b[A\x1b[A\x1b[A")
        terminal.wait_for(lambda lines: lines[2].startswith("▸AAPL"))
        terminal.press("d")
        terminal.wait_for(lambda lines: rows(lines) == ["MSFT", "TSLA"] and is_live(lines))
        terminal.press("anope\r")
        terminal.wait_for(lambda lines: "no such symbol: NOPE" in lines[-1] and is_live(lines))
        assert rows(terminal.lines) == ["MSFT", "TSLA"]
        terminal.press("aq\x1b")
        terminal.wait_for(lambda lines: "choose" in lines[-2])
        terminal.press("dd")
        terminal.wait_for(lambda lines: "no symbols" in lines[-1])
        terminal.press("anone\r")
        terminal.wait_for(lambda lines: "none of the symbols exists" in lines[-1])
        terminal.press("aaapl\r")
        terminal.wait_for(lambda lines: rows(lines) == ["AAPL"] and is_live(lines))
        terminal.press("q")
        assert terminal.wait_until_ended() == 0


def test_removed_symbol_of_all_stays_away(server, tmp_path):
    """Its updates still come with `*`. Adding it again shows it."""
    with Terminal(command(server, "*"), tmp_path) as terminal:
        terminal.wait_for(lambda lines: lines[2].startswith("▸A "))
        terminal.press("d")
        terminal.wait_for(lambda lines: lines[2].startswith("▸AAPL") and "of 512" in lines[-1])
        terminal.press("aa\r")
        terminal.wait_for(lambda lines: lines[2].startswith("▸A ") and "of 513" in lines[-1])


def test_rows_are_sorted_by_any_column(server, tmp_path):
    """The heading has an arrow; r turns the order round."""
    with Terminal(command(server, "AAPL", "MSFT", "TSLA"), tmp_path) as terminal:
        terminal.wait_for(lambda lines: len(rows(lines)) == 3 and is_live(lines))
        terminal.press("s")
        lines = terminal.wait_for(lambda lines: "price▼" in lines[0])
        assert rows(lines) == ["TSLA", "AAPL", "MSFT"]
        terminal.press("r")
        lines = terminal.wait_for(lambda lines: "price▲" in lines[0])
        assert rows(lines) == ["MSFT", "AAPL", "TSLA"]
        terminal.press("S")
        lines = terminal.wait_for(lambda lines: "symbol▲" in lines[0])
        assert rows(lines) == ["AAPL", "MSFT", "TSLA"]


def test_pause_holds_the_table(server, tmp_path):
    """The connection goes on, and so does its state; the newest prices are back at once."""
    with Terminal(command(server, "AAPL"), tmp_path) as terminal:
        terminal.wait_for(lambda lines: any("┤" in line for line in lines))
        terminal.press("p")
        paused = terminal.wait_for(lambda lines: "paused" in lines[-1])
        state = paused[-1]
        terminal.wait_for(lambda lines: lines[-1] != state)
        assert terminal.lines[:-1] == paused[:-1]
        assert is_live(terminal.lines)
        terminal.press("p")
        terminal.wait_for(lambda lines: "paused" not in lines[-1] and lines[2] != paused[2])


def test_chart_fills_the_terminal(server, tmp_path):
    """It has a price axis and a time axis, and other spans; Esc leads back."""
    with Terminal(command(server, "AAPL", "MSFT"), tmp_path, size=(90, 30)) as terminal:
        terminal.wait_for(is_live)
        terminal.press("\x1b[Bc")
        lines = terminal.wait_for(
            lambda lines: lines[0].startswith(" MSFT") and "┤" in lines[1] and "┴" in lines[-4]
        )
        assert all(line.rstrip("0123456789., ").endswith(("┤", "│")) for line in lines[1:-4])
        assert len(lines[-4].split("┴")) > 4
        terminal.press("t")
        terminal.wait_for(lambda lines: "a day in 5 m bars" in lines[0])
        terminal.press("\x1b")
        terminal.wait_for(lambda lines: lines[0].startswith(" symbol"))
        terminal.press("?")
        terminal.wait_for(lambda lines: any("remove the chosen symbol" in line for line in lines))


@pytest.mark.parametrize("size", [(40, 5), (40, 100), (250, 5), (250, 100), (20, 5)])
def test_any_size_shows_prices_and_state(server, tmp_path, size):
    """The window changes while it runs. No line is longer than the window."""
    with Terminal(command(server, "*"), tmp_path, size=(100, 24)) as terminal:
        terminal.wait_for(is_live)
        terminal.resize(*size)
        lines = terminal.wait_for(
            lambda lines: "live" in lines[-1] and lines[0].startswith(" symbol") and "A" in lines[2]
        )
        assert "price" in lines[0]
        # The next frame, too, stays within the window.
        seen = terminal.raw
        terminal.wait_for(lambda _: len(terminal.raw) > len(seen))
        assert terminal.is_within


def test_state_tells_of_a_server_that_went_away(tmp_path):
    """Killed, it is tried again after the seconds that are shown; the table comes back by itself."""
    ports = {"WS_PORT": str(free_port()), "HTTP_PORT": str(free_port())}
    with ServerProcess(tmp_path, PRICE_UPDATE_INTERVAL="100ms", **ports) as server:
        arguments = command(server, "AAPL")
        terminal = Terminal(arguments, tmp_path)
        terminal.__enter__()
        try:
            terminal.wait_for(is_live)
            server.process.kill()
            server.process.wait()
            lines = terminal.wait_for(lambda lines: "✕ reconnecting" in lines[-1])
            # The last price stays.
            assert rows(lines) == ["AAPL"]
            terminal.wait_for(lambda lines: "reconnecting in " in lines[-1])
            with ServerProcess(tmp_path, PRICE_UPDATE_INTERVAL="100ms", **ports):
                terminal.wait_for(lambda lines: is_live(lines) and "nothing missed" in lines[-1])
        finally:
            terminal.__exit__(None, None, None)


def test_state_tells_of_a_server_without_instruments(tmp_path):
    """No quote comes, and the connection is there all the same, also after a lost one."""
    port = str(free_port())
    settings = {"WS_PORT": port, "CATALOGUE": "empty", "FEED": "push"}
    arguments = [*COMMAND, "watch", "*", "--url", f"ws://127.0.0.1:{port}"]
    with Terminal([*arguments, "--token", make_token()], tmp_path) as terminal:
        for _ in range(2):
            with ServerProcess(tmp_path, **settings):
                terminal.wait_for(lambda lines: "connected, no quotes yet" in lines[-1])
            terminal.wait_for(lambda lines: "reconnecting" in lines[-1])


def test_ctrl_z_and_sigterm_leave_the_terminal_as_it_was(server, tmp_path):
    """A shell's prompt is readable while it is stopped, and all is painted anew when it goes on."""
    with Terminal(command(server, "AAPL"), tmp_path) as terminal:
        terminal.wait_for(is_live)
        stat = Path(f"/proc/{terminal.process.pid}/stat")
        terminal.process.send_signal(signal.SIGTSTP)
        eventually(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")
        terminal.wait_for(lambda _: terminal.raw.endswith(LEAVE.encode()))
        assert termios.tcgetattr(terminal.fd) == terminal.mode
        terminal.process.send_signal(signal.SIGCONT)
        terminal.wait_for(lambda _: terminal.raw.count(ENTER.encode()) == 2)
        terminal.wait_for(lambda lines: is_live(lines) and lines[0].startswith(" symbol"))
        assert termios.tcgetattr(terminal.fd) != terminal.mode
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.wait_until_ended() == 0
        assert termios.tcgetattr(terminal.fd) == terminal.mode


@pytest.mark.parametrize("hangs_up", [True, False], ids=["SIGHUP", "nohup"])
def test_closed_window_ends_it(server, tmp_path, hangs_up):
    """No traceback comes, whether a signal tells of it or not."""
    with Terminal(command(server, "AAPL"), tmp_path) as terminal:
        terminal.wait_for(is_live)
        terminal.close_window()
        if hangs_up:
            terminal.process.send_signal(signal.SIGHUP)
        assert terminal.process.wait(TIMEOUT) == 128 + signal.SIGPIPE
        assert terminal.process.stderr is not None
        assert not terminal.process.stderr.read()


def test_refusal_in_a_terminal_is_one_line(server, tmp_path):
    """It is written after the screen is gone, so that it stays."""
    arguments = [*COMMAND, "watch", "NOPE", "--url", server.quotes_url, "--token", make_token()]
    with Terminal(arguments, tmp_path) as terminal:
        assert terminal.wait_until_ended() == 2
        assert termios.tcgetattr(terminal.fd) == terminal.mode
        assert terminal.process.stderr is not None
        (line,) = terminal.process.stderr.read().splitlines()
        assert "none of the symbols exists" in line


def test_colours_can_be_left_out(server, tmp_path):
    """NO_COLOR leaves bold, reverse and arrows."""
    with Terminal(command(server, "AAPL"), tmp_path, NO_COLOR="1") as terminal:
        terminal.wait_for(lambda lines: is_live(lines) and any(each in lines[2] for each in "▲▼"))
        styles = {
            style
            for part in terminal.raw.split(b"\x1b[")[1:]
            if part.split(b"m")[0].replace(b";", b"").isdigit()
            for style in part.split(b"m")[0].split(b";")
        }
        assert styles <= {b"0", b"1", b"2", b"7"}


def test_terminal_without_unicode_gets_ascii(server, tmp_path):
    """Each character of the drawing has one of ASCII in its place."""
    with Terminal(command(server, "AAPL"), tmp_path, PYTHONIOENCODING="ascii") as terminal:
        terminal.wait_for(
            lambda lines: "* live" in lines[-1] and any("*" in x for x in lines[5:-3])
        )
        assert terminal.raw.isascii()


def test_busiest_symbols_of_all(server, tmp_path):
    """`--top 5` needs no symbols, and shows how often each moved."""
    with Terminal(command(server, "--top", "5"), tmp_path) as terminal:
        lines = terminal.wait_for(lambda lines: len(rows(lines)) == 5 and is_live(lines))
        assert "upd/min" in lines[0]


def read_lines(arguments: list[str], folder: Path, count: int) -> tuple[list[str], int, str]:
    """Return some lines of the command, and its exit code and errors after its reader left."""
    with piped(arguments, folder) as it:
        lines = [it.stdout.readline() for _ in range(count)]
        it.stdout.close()
        return lines, it.process.wait(TIMEOUT), it.stderr.read()


def test_json_is_one_object_a_line(server, tmp_path):
    """Each change is a whole quote; other messages are as the server sent them."""
    arguments = command(server, "AAPL", "NOPE", "--json")
    lines, code, errors = read_lines(arguments, tmp_path, 6)
    objects = [json.loads(line) for line in lines]
    quotes = [each for each in objects if each["type"] == "quote"]
    assert len(quotes) == 5
    versions = [each["version"] for each in quotes]
    assert versions == [*range(versions[0], versions[0] + 5)]
    assert all(each["symbol"] == "AAPL" and each["quote"]["current_price"] for each in quotes)
    (error,) = (each for each in objects if each["type"] == "error")
    assert error["symbols"] == ["NOPE"]
    assert (code, errors) == (128 + signal.SIGPIPE, "")


def test_json_of_the_busiest(server, tmp_path):
    """Only changes are counted, not the opening quotes of all symbols."""
    lines, code, errors = read_lines(command(server, "--top", "3", "--json"), tmp_path, 3)
    assert all(json.loads(line)["type"] == "quote" for line in lines)
    assert (code, errors) == (128 + signal.SIGPIPE, "")


def test_reader_that_left_ends_it_although_nothing_moves(tmp_path):
    """`head -1` has its line; no other line comes on which the command could notice."""
    with ServerProcess(tmp_path, FEED="push") as server:
        begun = time.monotonic()
        lines, code, errors = read_lines(command(server, "AAPL", "--json"), tmp_path, 1)
        assert json.loads(lines[0])["symbol"] == "AAPL"
        assert (code, errors) == (128 + signal.SIGPIPE, "")
        assert time.monotonic() - begun < TIMEOUT


def test_output_in_a_file(server, tmp_path):
    """A file has no reader that could leave."""
    path = tmp_path / "lines"
    with path.open("w") as file:
        process = subprocess.Popen(
            command(server, "AAPL", "--json"), cwd=tmp_path, env=environment(), stdout=file
        )
    deadline = time.monotonic() + TIMEOUT
    while path.read_text().count("\n") < 3:
        assert time.monotonic() < deadline
        assert process.poll() is None
        os.sched_yield()
    process.send_signal(signal.SIGINT)
    assert process.wait(TIMEOUT) == 130


def test_symbols_may_be_separated_by_commas(server, tmp_path):
    """As in an address, and as after the key `a`."""
    lines, code, errors = read_lines(command(server, "aapl,MSFT,", "--json"), tmp_path, 2)
    assert {json.loads(line)["symbol"] for line in lines} == {"AAPL", "MSFT"}
    assert (code, errors) == (128 + signal.SIGPIPE, "")


@pytest.mark.parametrize("redirection", [">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("name", ["watch", "bars"])
def test_outputs_may_be_closed(server, tmp_path, name, redirection):
    """A shell's `>&-` closes them. The exit code still tells that the symbol is unknown."""
    url = server.quotes_url if name == "watch" else server.http_url
    arguments = [name, "NOPE", "--url", url, "--token", make_token()]
    code, errors = redirected(tmp_path, redirection, *arguments)
    assert (code, "Traceback" in errors) == (2, False)


def test_input_may_be_closed(tmp_path):
    """It holds no token then."""
    code, errors = redirected(tmp_path, "<&-", "watch", "AAPL", "--token-file", "-")
    assert (code, len(errors.splitlines())) == (2, 1)


def redirected(folder: Path, redirection: str, *arguments: str) -> tuple[int, str]:
    """Run a command with a shell's redirection. Return its exit code and its errors."""
    shell = ["sh", "-c", f'exec "$@" {redirection}', "sh", *COMMAND, *arguments]
    done = subprocess.run(
        shell,
        cwd=folder,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("symbols", [(), (" ", ",")])
def test_symbols_or_top_are_needed(tmp_path, symbols):
    """The usage says so, and the exit code is that of a wrong command line."""
    done = run(tmp_path, "watch", *symbols)
    assert done.returncode == 2
    assert "name symbols, '*' for all, or --top N" in done.stderr
