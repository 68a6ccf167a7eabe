"""`quotestream bars` and `quotestream export bars`: tables, CSV, mistakes, and servers that fail."""

import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from server.client.sparkline import sparkline
from tests.cli.command import COMMAND, complaint, environment, run
from tests.cli.terminal import Terminal
from tests.processes import eventually

TOKEN = {"QUOTESTREAM_TOKEN": "a.b.c"}

HEADER = "symbol,t,o,h,l,c,v,n,vw,final,rev"


def bar(minute: int, close: float = 175.5, **more: Any) -> dict[str, Any]:
    """Return a bar as a server sends it."""
    moment = f"2026-11-24T14:{minute:02}:00Z"
    values = {"t": moment, "o": 175.0, "h": 176.25, "l": 0.00001, "c": close, "v": 300, "n": 2}
    return values | {"vw": None, "final": True, "rev": 0} | more


def line(symbol: str, minute: int, rest: str = "175.5,300,2,,true,0") -> str:
    """Return a line of CSV."""
    return f"{symbol},2026-11-24T14:{minute:02}:00Z,175.0,176.25,1e-05,{rest}"


class Scripted(BaseHTTPRequestHandler):
    """Answers each request with the next of the server's answers: a status and a body."""

    server: Any

    def do_GET(self) -> None:
        self.server.requests.append((self.path, self.headers["Authorization"]))
        status, body, *headers = self.server.answers.pop(0)
        if status == 0:
            return
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())

    def log_message(self, *_: object) -> None:
        """Keep the test's output short."""


@contextmanager
def scripted(*answers: tuple[Any, ...]) -> Iterator[Any]:
    """Run a server with these answers."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Scripted) as server:
        server.answers, server.requests = [*answers], []  # type: ignore[attr-defined]  # its handler reads them
        server.url = f"http://127.0.0.1:{server.server_port}"  # type: ignore[attr-defined]  # as above
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def page(token: str | None = None, **bars: Any) -> tuple[int, Any]:
    return 200, {"bars": bars, "next_page_token": token}


def parameters(server: Any, number: int = 0) -> dict[str, str]:
    """Return the parameters of a request to `/bars`."""
    parts = urlsplit(server.requests[number][0])
    assert parts.path == "/bars"
    return {name: values[0] for name, values in parse_qs(parts.query).items()}


def test_bars_are_csv_without_a_terminal(tmp_path):
    """The newest bars come, the oldest first, and each number is as the server sent it."""
    with scripted(page(AAPL=[bar(31, vw=175.25), bar(30)])) as server:
        arguments = ["--start", "2026-11-24", "--tz", "America/New_York", "--limit", "2"]
        done = run(tmp_path, "bars", "aapl", *arguments, "--url", server.url, **TOKEN)
        assert (done.returncode, done.stderr) == (0, "")
        second = line("AAPL", 31, "175.5,300,2,175.25,true,0")
        assert done.stdout.splitlines() == [HEADER, line("AAPL", 30), second]
        assert parameters(server) == {
            "symbols": "AAPL",
            "timeframe": "1m",
            "start": "2026-11-24",
            "tz": "America/New_York",
            "fill": "none",
            "sort": "desc",
            "limit": "2",
        }
        assert server.requests[0][1] == "Bearer a.b.c"


def test_terminal_gets_a_table_with_a_sparkline(tmp_path):
    """Times are in the zone that is asked for. An open bar and a revised one are marked."""
    bars = [bar(32, 177.0, final=False), bar(31, 176.0, rev=3), bar(30, 175.0)]
    with scripted(page(AAPL=bars)) as server:
        arguments = ["bars", "AAPL", "--tz", "America/New_York", "--url", server.url]
        shown = in_terminal(tmp_path, *arguments)
    lines = shown.splitlines()
    assert lines[0] == "AAPL 1m  ▁▅█  175 to 177"
    assert lines[1].split()[:3] == ["time", "open", "high"]
    assert lines[2].startswith("2026-11-24 09:30 EST")
    assert lines[3].endswith("revised 3")
    assert lines[4].endswith("open")


@pytest.mark.parametrize(
    ("answer", "time"),
    [
        ((200, {"timezone": "America/New_York"}), "09:30 EST"),
        ((200, {"timezone": "Etc/UTC"}), "14:30 UTC"),
        ((200, {"s": "error", "errmsg": "unknown_symbol"}), "14:30 UTC"),
        ((200, {"timezone": "Mars/X"}), "14:30 UTC"),
        ((404, b"an older server"), "14:30 UTC"),
    ],
)
def test_table_has_the_times_of_the_servers_zone(tmp_path, answer, time):
    """Without --tz. So the bar of a day is at midnight."""
    with scripted(page(AAPL=[bar(30)]), answer) as server:
        lines = in_terminal(tmp_path, "bars", "AAPL", "--url", server.url).splitlines()
        assert server.requests[1] == ("/udf/symbols?symbol=AAPL", "Bearer a.b.c")
    assert lines[2].startswith(f"2026-11-24 {time}")


def in_terminal(folder: Path, *arguments: str) -> str:
    """Return what a command writes to a terminal."""
    command, state = [*COMMAND, *arguments], str(folder)
    token = TOKEN["QUOTESTREAM_TOKEN"]
    with Terminal(command, folder, XDG_STATE_HOME=state, QUOTESTREAM_TOKEN=token) as terminal:
        return terminal.read_all()


def test_no_bars_is_no_error_and_no_symbol_is_one(tmp_path):
    """An empty range gives the header alone. A symbol that is not listed is named."""
    with scripted(page(), (200, {})) as server:
        done = run(tmp_path, "bars", "AAPL", "--url", server.url, **TOKEN)
        assert (done.returncode, done.stdout) == (0, f"{HEADER}\n")
        assert done.stderr == "no bars of AAPL in this range\n"
    with scripted(page(), (404, {})) as server:
        said = complaint(tmp_path, "bars", "BRK/B", "--url", server.url, **TOKEN)
        assert said == "quotestream: BRK/B is not listed"
        assert server.requests[1][0] == "/instruments/BRK%2FB"


def test_export_writes_all_pages(tmp_path):
    """The file has the bars of all pages, and stands there when the command ends."""
    answers = [
        page("second", AAPL=[bar(30), bar(31)]),
        page("third", AAPL=[bar(32)], MSFT=[bar(30)]),
        page(None, MSFT=[bar(31)]),
    ]
    with scripted(*answers) as server:
        done = run(
            tmp_path,
            *["export", "bars", "--symbols", "msft, AAPL,TSLA", "--output", "bars.csv"],
            *["--timeframe", "5m", "--end", "2026-11-25", "--url", server.url],
            **TOKEN,
        )
        assert (done.returncode, done.stdout) == (0, "")
        assert done.stderr == "5 bars of 2 symbols\nnot listed, or without bars: TSLA\n"
        assert [parameters(server, each).get("page_token") for each in range(3)] == [
            None,
            "second",
            "third",
        ]
        assert parameters(server)["symbols"] == "MSFT,AAPL,TSLA"
    expected = [("AAPL", 30), ("AAPL", 31), ("AAPL", 32), ("MSFT", 30), ("MSFT", 31)]
    lines = (tmp_path / "bars.csv").read_text().splitlines()
    assert lines == [HEADER, *(line(*each) for each in expected)]
    assert [each.name for each in tmp_path.glob("*bars*")] == ["bars.csv"]


@pytest.mark.parametrize(
    ("bars", "told"),
    [
        ({}, "0 bars of 0 symbols"),
        ({"AAPL": [30]}, "1 bar of 1 symbol"),
        ({"AAPL": [30, 31]}, "2 bars of 1 symbol"),
    ],
)
def test_export_tells_how_many(tmp_path, bars, told):
    """One is told in the singular."""
    answer = page(None, **{name: [bar(each) for each in minutes] for name, minutes in bars.items()})
    with scripted(answer) as server:
        done = run(
            tmp_path,
            *["export", "bars", "--symbols", "AAPL", "--output", "bars.csv"],
            *["--timeframe", "5m", "--end", "2026-11-25", "--url", server.url],
            **TOKEN,
        )
    assert done.stderr.splitlines()[0] == told


def test_export_goes_on_after_a_failure(tmp_path):
    """A page is asked for again when the server is busy, or ends the connection."""
    busy = 503, {"error": {"code": "store_unavailable", "message": "later"}}, ("Retry-After", "0")
    with scripted(page("second", AAPL=[bar(30)]), busy, (0, b""), page(AAPL=[bar(31)])) as server:
        done = run(tmp_path, "export", "bars", "--symbols", "AAPL", "--url", server.url, **TOKEN)
    assert done.returncode == 0
    assert done.stdout.splitlines() == [HEADER, line("AAPL", 30), line("AAPL", 31)]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ((401, {"error": {"code": "unauthorized", "message": "expired"}}), "401 unauthorized: ex"),
        ((400, {"error": {"code": "bad_request", "message": "start: no"}}), "start: no"),
        ((404, b"<html>"), "404 the server does not answer as quotestream does"),
        ((200, {"bars": {}, "next_page_token": None}, ("Unavailable-Symbols", "AAPL")), "AAPL"),
    ],
)
def test_refused_export_leaves_no_file(tmp_path, answer, problem):
    """One line says why, and an earlier file stays."""
    (tmp_path / "bars.csv").write_text("the last one")
    with scripted(page("second", AAPL=[bar(30)]), answer) as server:
        arguments = ["export", "bars", "--symbols", "AAPL", "--output", "bars.csv"]
        said = complaint(tmp_path, *arguments, "--url", server.url, **TOKEN)
    assert said.startswith(f"quotestream: {server.url}: ")
    assert problem in said
    assert (tmp_path / "bars.csv").read_text() == "the last one"
    assert [each.name for each in tmp_path.glob("*bars*")] == ["bars.csv"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["bars"], "SYMBOL"),
        (["bars", "AAPL", "--timeframe", "7m"], "invalid choice: '7m'"),
        (["bars", "AAPL", "--limit", "0"], "'0' is not a number of bars from 1 to 10000"),
        (["bars", "AAPL", "--tz", "Mars/X"], "'Mars/X' is not a time zone"),
        (["bars", "AAPL", "--url", "ws://host"], "is not an address such as http://host:8081"),
        (["bars", "\udcff"], "'\\udcff' is not UTF-8 text"),
        (["bars", "AAPL", "--start", "\udcff"], "'\\udcff' is not UTF-8 text"),
        (["export", "bars", "--symbols", "AAPL,\udcff"], "'\\udcff' is not UTF-8 text"),
        (["bars", "AAPL", "--limit", "²"], "'²' is not a number of bars"),
        (["bars", "AAPL", "--url", "http://host:99999"], "is not an address such as http://"),
        (["export", "bars", "--symbols", " , "], "no symbol, for instance AAPL,MSFT"),
        (["export", "quotes"], "invalid choice: 'quotes'"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, arguments, problem):
    """The last line names the mistake."""
    done = run(tmp_path, *arguments, **TOKEN)
    assert done.returncode == 2
    assert problem in done.stderr.splitlines()[-1]


def test_file_that_cannot_be_written_is_named(tmp_path):
    """The command asks no server then."""
    with scripted() as server:
        arguments = ["export", "bars", "--symbols", "AAPL", "--output", "no/such/bars.csv"]
        said = complaint(tmp_path, *arguments, "--url", server.url, **TOKEN)
        assert said == "quotestream: cannot write no/such/bars.csv: No such file or directory"
        assert not server.requests


def test_ctrl_c_ends_an_export_without_a_traceback(tmp_path):
    """The part that was written is removed."""
    with scripted(page("second", AAPL=[bar(30)]), (0, b"")) as server:
        arguments = ["export", "bars", "--symbols", "AAPL", "--output", "bars.csv"]
        variables = environment(XDG_STATE_HOME=str(tmp_path)) | TOKEN
        with subprocess.Popen(
            [*COMMAND, *arguments, "--url", server.url],
            cwd=tmp_path,
            env=variables,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            # It waits half a second before it asks again.
            eventually(lambda: len(server.requests) == 2, 60)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "")
    assert not [*tmp_path.glob("*bars*")]


def test_sparkline_has_the_shape_of_the_prices():
    """The lowest is at the bottom and the highest at the top; many values share a column."""
    assert sparkline([1, 2, 3], 10) == "▁▅█"
    assert sparkline([5, 5], 10) == "▁▁"
    assert sparkline([], 10) == ""
    assert sparkline([*range(800)], 8) == "▁▂▃▄▅▆▇█"
