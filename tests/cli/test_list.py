"""`quotestream list`, and a catalogue with one's own instruments only."""

import subprocess

import pytest

from tests.cli.command import COMMAND, complaint, environment, run
from tests.processes import ServerProcess


def test_all_instruments_and_what_a_search_finds(tmp_path):
    """One line each; the number goes to standard error, so that the output can be cut and sorted."""
    done = run(tmp_path, "list")
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr, len(lines)) == (0, "513 instruments\n", 513)
    assert [line.split()[0] for line in lines] == sorted(line.split()[0] for line in lines)
    done = run(tmp_path, "list", "o'reilly")
    assert done.stdout.split()[:2] == ["ORLY", "STOCK"]
    assert done.stderr == "1 instrument\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_name_that_the_terminal_cannot_show(tmp_path, encoding):
    """Old machines have locales without Unicode. The symbol is written in escapes."""
    (tmp_path / "own.csv").write_text("symbol,name,price\n東,Tokyo,5\nZ,Z,5\n", encoding="utf-8")
    variables = environment(
        CATALOGUE="empty", PYTHONIOENCODING=encoding, XDG_STATE_HOME=str(tmp_path)
    )
    shown = "東" if encoding == "utf-8" else r"\u6771"
    assert run(tmp_path, "import", "own.csv", CATALOGUE="empty").returncode == 0
    for arguments in (["import", "--dry-run", "own.csv"], ["list"]):
        # The encoding is a process's own.
        done = subprocess.run(
            [*COMMAND, *arguments],
            cwd=tmp_path,
            env=variables,
            capture_output=True,
            encoding=encoding,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert shown in done.stdout
        assert "Z" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["list", "?"],
        ["delist", "A", "?"],
        ["watch", "?"],
        ["rename", "?", "B"],
        ["rename", "A", "?"],
        ["split", "?", "4:1"],
    ],
    ids=" ".join,
)
def test_argument_that_is_not_utf_8_is_named(tmp_path, arguments):
    """A terminal of another encoding sends such bytes."""
    done = run(tmp_path, *(each.replace("?", "caf\udce9") for each in arguments))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(r"'caf\udce9' is not UTF-8 text")
    assert "Traceback" not in done.stderr


def test_one_s_own_instruments_only(tmp_path):
    """CATALOGUE=empty leaves out the shipped ones."""
    (tmp_path / "own.csv").write_text("symbol,name,price\nOWN,Own,0.00001234\n")
    own = {"CATALOGUE": "empty"}
    assert run(tmp_path, "list", **own).stderr == "0 instruments\n"
    assert run(tmp_path, "import", "own.csv", **own).returncode == 0
    assert run(tmp_path, "list", **own).stdout == "OWN          STOCK      0.00001234  Own\n"
    with ServerProcess(tmp_path, **own) as server:
        status, found = server.ask("/instruments")
        assert (status, [each["symbol"] for each in found]) == (200, ["OWN"])
    assert "CATALOGUE" in complaint(tmp_path, "serve", CATALOGUE="full")


def test_success_that_is_none_is_an_error(tmp_path):
    """Where no file can be written, an import would be lost with the process."""
    (tmp_path / "file").write_text("")
    for command in ("import", "list", "migrate"):
        line = complaint(tmp_path, command, XDG_STATE_HOME=str(tmp_path / "file"))
        assert "SQLITE_PATH" in line
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
