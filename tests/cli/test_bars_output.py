"""`quotestream bars` and `quotestream export bars`: pipes, folders, widths, and servers that fail."""

import os
import signal
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from server.client import history
from server.client.history import HistoryClient, HistoryRefused, Page
from tests.cli.command import COMMAND, complaint, environment, run
from tests.cli.test_bars import HEADER, TOKEN, bar, in_terminal, line, page, scripted


@pytest.mark.parametrize("rows", [2, 20_000], ids=["a few bars", "many bars"])
@pytest.mark.parametrize("command", [["bars", "AAPL"], ["export", "bars", "--symbols", "AAPL"]])
def test_reader_that_has_gone_ends_the_command(tmp_path, command, rows):
    """As `| head` does: without a traceback, and with the code of a broken pipe."""
    with scripted(page(AAPL=[bar(30)] * rows)) as server:
        variables = environment(XDG_STATE_HOME=str(tmp_path)) | TOKEN
        ours, theirs = os.pipe()
        os.close(ours)
        arguments = [*COMMAND, *command, "--url", server.url]
        done = subprocess.run(
            arguments,
            cwd=tmp_path,
            env=variables,
            stdout=theirs,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
        os.close(theirs)
    said = done.stderr.splitlines()
    assert done.returncode == 128 + signal.SIGPIPE
    assert not [each for each in said if "Error" in each or "Traceback" in each]


@pytest.mark.parametrize("rows", [2, 20_000], ids=["a few bars", "many bars"])
@pytest.mark.parametrize("command", [["bars", "AAPL"], ["export", "bars", "--symbols", "AAPL"]])
def test_full_disk_is_told_in_one_line(tmp_path, command, rows):
    """The disk of standard output, which the shell opened."""
    with scripted(page(AAPL=[bar(30)] * rows)) as server, Path("/dev/full").open("w") as full:
        variables = environment(XDG_STATE_HOME=str(tmp_path)) | TOKEN
        arguments = [*COMMAND, *command, "--url", server.url]
        process = subprocess.Popen(
            arguments, cwd=tmp_path, env=variables, stdout=full, stderr=subprocess.PIPE, text=True
        )
        _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    told = "quotestream: the output cannot be written: No space left on device"
    assert said == f"{told}\n"


def test_empty_range_on_a_terminal_has_no_table(tmp_path):
    """One line says so, on standard error."""
    with scripted(page(), (200, {})) as server:
        assert in_terminal(tmp_path, "bars", "AAPL", "--url", server.url) == ""


def test_export_writes_into_a_pipe(tmp_path):
    """A pipe or a device stays what it is. A file would be replaced."""
    pipe, found = tmp_path / "pipe", list[str]()
    os.mkfifo(pipe)
    reading = threading.Thread(target=lambda: found.append(pipe.read_text()))
    reading.start()
    with scripted(page(AAPL=[bar(30)])) as server:
        arguments = ["export", "bars", "--symbols", "AAPL", "--output", "pipe"]
        done = run(tmp_path, *arguments, "--url", server.url, **TOKEN)
    assert done.returncode == 0, done
    reading.join(60)
    assert found == [f"{HEADER}\n{line('AAPL', 30)}\n"]
    assert pipe.is_fifo()


@pytest.mark.parametrize("name", ["", ".", "/", "folder"])
def test_folder_is_no_output(tmp_path, name):
    """The command says so, and asks no server."""
    (tmp_path / "folder").mkdir()
    with scripted() as server:
        arguments = ["export", "bars", "--symbols", "AAPL", "--output", name]
        said = complaint(tmp_path, *arguments, "--url", server.url, **TOKEN)
        assert said == f"quotestream: cannot write {name or '.'}: Is a directory"
        assert not server.requests


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"bars": null}', b'{"bars": {}}'])
@pytest.mark.parametrize("command", [["bars", "AAPL"], ["export", "bars", "--symbols", "AAPL"]])
def test_another_program_at_the_address_is_named(tmp_path, command, body):
    """It answers 200, with something else than bars."""
    with scripted((200, body)) as server:
        done = run(tmp_path, *command, "--url", server.url, **TOKEN)
    assert done.returncode == 2, done
    told = f"{server.url}: 200 the server does not answer as quotestream does"
    assert done.stderr == f"quotestream: {told}\n"


def test_bars_of_a_store_that_is_away(tmp_path):
    """The server does not know whether there is such a symbol."""
    with scripted(
        (200, {"bars": {}, "next_page_token": None}, ("Unavailable-Symbols", "AAPL"))
    ) as s:
        said = complaint(tmp_path, "bars", "AAPL", "--url", s.url, **TOKEN)
    assert said == f"quotestream: {s.url}: the server's store gives no answer about AAPL"


def test_each_wait_is_told():
    """A terminal shows it, so that nobody waits without knowing why."""
    busy = 503, {"error": {"code": "store_unavailable", "message": "later"}}, ("Retry-After", "0")
    told = list[str]()
    with scripted(busy, page(AAPL=[bar(30)])) as server:
        pages = HistoryClient(server.url, "a.b.c", told.append).pages({"symbols": "AAPL"})
        assert len(next(pages).bars["AAPL"]) == 1
    assert told == ["503 store_unavailable: later; asking again in 0.5 s"]


def test_answer_that_is_cut_off_is_asked_for_again():
    """As by a proxy that restarts: the body ends before its `Content-Length`."""
    cut = 200, b'{"bars":', ("Content-Length", "99")
    told = list[str]()
    with scripted(cut, page(AAPL=[bar(30)])) as server:
        pages = HistoryClient(server.url, "a.b.c", told.append).pages({"symbols": "AAPL"})
        assert len(next(pages).bars["AAPL"]) == 1
    assert told == ["the answer breaks off; asking again in 0.5 s"]


def test_server_that_is_down_is_told_in_words(monkeypatch):
    """Without the number of the error."""
    monkeypatch.setattr(history, "ATTEMPTS", 1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(HistoryRefused) as refused:
        next(HistoryClient(f"http://127.0.0.1:{port}", "a.b.c").pages({}))
    assert str(refused.value) == "Connection refused"


def test_table_is_as_wide_as_its_values(tmp_path):
    """Usual bars fit into 80 columns, and long numbers stay below their heads."""
    usual = bar(30, vw=175.25, l=174.5, v=18500, n=312, rev=12)
    long = bar(31, 123456789.12345678, o=98765432.1, v=900719925474099.5, vw=1e8)
    for bars, most in (([usual], 80), ([long, usual], 140)):
        with scripted(page(AAPL=bars)) as server:
            arguments = ["bars", "AAPL", "--tz", "America/New_York", "--url", server.url]
            title, *table = in_terminal(tmp_path, *arguments).splitlines()
        assert max(map(len, [title, *table])) <= most
        heads = table[0]
        ends = [heads.index(each) + len(each) for each in heads.split()[1:]]
        for row in table[1:]:
            assert all(row[end - 1] != " " and row[end : end + 1] in (" ", "") for end in ends)
    assert "123456789.12345678" in title


BAR = bar(30)

ODD_PAGES: dict[str, object] = {
    "deep": b"[" * 100_000,
    "bars that are a list": {"bars": [], "next_page_token": None},
    "bars that are texts": {"bars": {"AAPL": ["x"]}, "next_page_token": None},
    "bars that are a text": {"bars": {"AAPL": "xyz"}, "next_page_token": None},
    "a bar without values": {"bars": {"AAPL": [{}]}, "next_page_token": None},
    "a token that is a list": {"bars": {}, "next_page_token": ["x"]},
    "a command for the terminal": {"bars": {"AAPL": [BAR | {"o": "\x1b[2J"}]}, "next_page_token": None},
    "a command as a symbol": {"bars": {"\x1b[2J": [BAR]}, "next_page_token": None},
    "a time that is not one": {"bars": {"AAPL": [BAR | {"t": "\x1b[2J"}]}, "next_page_token": None},
    "a time with a command": {
        "bars": {"AAPL": [BAR | {"t": "2026-11-24\x1b14:30:00Z"}]}, "next_page_token": None,
    },
    "a time of two lines": {
        "bars": {"AAPL": [BAR | {"t": "2026-11-24\n14:30:00Z"}]}, "next_page_token": None,
    },
    "a close that is too large": {"bars": {"AAPL": [BAR | {"c": "1e999"}]}, "next_page_token": None},
    "a time without a zone": {
        "bars": {"AAPL": [BAR | {"t": "2026-11-24T14:30:00"}]}, "next_page_token": None,
    },
    "no close": {"bars": {"AAPL": [BAR | {"c": None}]}, "next_page_token": None},
    "final that is a text": {"bars": {"AAPL": [BAR | {"final": "\x1b[2J"}]}, "next_page_token": None},
}  # fmt: skip


@pytest.mark.parametrize("body", ODD_PAGES.values(), ids=ODD_PAGES)
def test_odd_page_is_refused(body):
    """Neither the table nor a chart of `watch` gets what it could not show."""
    with (
        scripted((200, body)) as server,
        pytest.raises(HistoryRefused, match="200 the server does"),
    ):
        next(HistoryClient(server.url, "a.b.c").pages({}))


def test_endless_answer_is_left():
    """An answer has a limit far above a page's."""
    with (
        scripted((200, b"x" * (2**24 + 1))) as server,
        pytest.raises(HistoryRefused, match="an answer of more than"),
    ):
        next(HistoryClient(server.url, "a.b.c").pages({}))


def test_pages_that_do_not_go_on_are_refused():
    """A server that gives the same token again would be asked for ever. The bars are not complete."""
    answers = [page("same", AAPL=[bar(30)])] * 3
    pages = list[Page]()
    with scripted(*answers) as server, pytest.raises(HistoryRefused, match="the same page again"):
        pages.extend(HistoryClient(server.url, "a.b.c").pages({}))
    assert len(pages) == 2
