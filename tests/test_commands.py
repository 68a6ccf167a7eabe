"""Each command that the documents show runs as it is written, from the clone's root.

A command is a span of code, or a line behind a prompt. It begins with a script of the clone. Every
command is of one of KINDS, so a new one is either run here or has a reason why not.
"""

import gzip
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_docs import DOCUMENTS, ROOT

PATIENCE = 120.0
"""Seconds for a command that an idle machine runs in a few."""

_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_PROMPT = re.compile(r"^\$ (.+)$", re.MULTILINE)
_SPAN = re.compile(r"`([^`]+)`")
_VARIABLES = r"(?:[A-Z_]+=\S+ )*"
_OWN = re.compile(_VARIABLES + r"(?:\S*/)?(?:quotestream|python3?|pip|pytest|bench)\s+\S.*")
_SCRIPT = re.compile(_VARIABLES + r"(scripts/\w+)(\s.*)?")

PLACEHOLDERS = {
    "[QUERY]": "micro",
    "SYMBOL…": "AAPL",
    "NAME": "alice",
    "SCENARIO": "burst",
    "N|auto": "2",
    "N": "2",
}
"""What a reader puts in place of a word in capitals."""

KINDS = {
    # Named without arguments, so only the help is certain to be right.
    "help": r"scripts/bench \w+.*|scripts/python -m tests\.fuzz\b.*"
    r"|scripts/quotestream (?:token|import(?: --fresh)?|rename|split)",
    "run": r"scripts/quotestream (?:token|list|delist|import|migrate)\b.*|\S+ (?:.* )?--help",
    "start": r"(?:FEED=\S+ )?scripts/(?:serve|quotestream serve)",
    # These need a Redis, and tests/workers starts them with one.
    "redis": r"scripts/(?:serve|quotestream serve) --workers \S+"
    r"|REDIS_URL=\S+ FEED=stream:\S+ scripts/serve",
    # These change instruments that the file of a fresh clone does not have: tests/store/test_life.py.
    "life": r"scripts/quotestream (?:rename|split) \S.*",
    # These publish to a server: tests/feeds/test_publishing_document.py.
    "publish": r"scripts/quotestream publish\b.*|scripts/python examples/publish\.py\b.*",
    # These ask a server: tests/cli/test_bars.py.
    "history": r"scripts/quotestream (?:bars|export bars)\b.*",
    # It draws until its user ends it: tests/cli/test_watch.py.
    "screen": r"scripts/quotestream watch\b.*",
    # They install packages, look at the whole project, or run for minutes.
    "long": r"scripts/(?:setup|lock|check|test|mutate|check_subjects|bench)\b.*"
    r"|scripts/python (?:-m pip|scripts/trace\.py|-m tests\.ops\.settings_document)\b.*",
}
"""Kinds of commands. `run` ends by itself, `start` serves until a signal, `help` shows its help."""


def commands() -> Iterator[str]:
    """Yield each command of the documents once."""
    seen = set()
    for document in DOCUMENTS:
        text = document.read_text()
        shown = _SPAN.findall(_FENCE.sub("", text))
        for fence in _FENCE.findall(text):
            shown += _PROMPT.findall(fence)
        for each in shown:
            command = " ".join(each.split(" #")[0].split())
            if command not in seen and (_OWN.fullmatch(command) or _SCRIPT.fullmatch(command)):
                seen.add(command)
                yield command


def kind_of(command: str) -> str | None:
    return next((kind for kind, form in KINDS.items() if re.fullmatch(form, command)), None)


COMMANDS = sorted(commands())


def of_kind(kind: str) -> list[str]:
    return [each for each in COMMANDS if kind_of(each) == kind]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a state folder, with the files that commands name."""
    (tmp_path / "FILE.csv").write_text("symbol,name,price\nNEW,New Company,10.00\n")
    day = "timestamp_ms,symbol,price,size\n1764012345678,AAPL,175.50,100\n"
    (tmp_path / "trades.csv.gz").write_bytes(gzip.compress(day.encode()))
    return tmp_path


def prepared(command: str, folder: Path) -> tuple[list[str], dict[str, str]]:
    """Return the words and the environment of `command`, with values in place of placeholders."""
    words = [PLACEHOLDERS.get(each, each) for each in shlex.split(command)]
    words = [str(folder / each) if each == "FILE.csv" else each for each in words]
    environment = os.environ | {
        "XDG_STATE_HOME": str(folder),
        "WS_PORT": "0",
        "HTTP_PORT": "0",
        "COLUMNS": "80",
    }
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        environment[name] = value.replace("trades.csv.gz", str(folder / "trades.csv.gz"))
    return words, environment


@pytest.mark.parametrize("command", COMMANDS)
def test_command_begins_with_a_script_of_the_clone(command):
    """`quotestream` and `python` are not on a reader's path, or are other programs."""
    script = _SCRIPT.fullmatch(command)
    assert script, command
    assert os.access(ROOT / script[1], os.X_OK), command
    assert kind_of(command), f"{command} is of none of KINDS"


def test_commands_without_a_script_are_noticed():
    """The check sees what a reader would copy; a single word is a name."""
    for text in (
        "quotestream list",
        ".venv/bin/quotestream list",
        "python -m bench",
        "bench burst",
    ):
        assert _OWN.fullmatch(text)
        assert not _SCRIPT.fullmatch(text)
    assert not _OWN.fullmatch("bench")
    assert kind_of("scripts/serve --prot 1") is None


@pytest.mark.parametrize("command", of_kind("run"))
def test_command_runs(command, folder):
    """It ends with 0."""
    words, environment = prepared(command, folder)
    done = subprocess.run(
        words,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout


@pytest.mark.parametrize("command", of_kind("help"))
def test_command_has_its_options(command, folder):
    """Its help comes at once: the program starts, and knows its subcommand."""
    words, environment = prepared(command, folder)
    done = subprocess.run(
        [*words, "--help"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")


@pytest.mark.parametrize("command", of_kind("start"))
def test_command_serves(command, folder):
    """It prints its addresses, and stops at a signal."""
    words, environment = prepared(command, folder)
    with subprocess.Popen(
        words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline().startswith("page ")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
