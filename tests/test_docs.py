"""The documents name what exists: links, files, tests and commands."""

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from bench.__main__ import _parser as bench_parser
from server.cli.commands import _parser as server_parser
from server.quotes.messages import Command, ErrorCode

TESTS = Path(__file__).parent
ROOT = TESTS.parent
DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "server" / "store" / "instruments.md",
]

FOLDERS = [ROOT, ROOT / "server", TESTS]
"""The folders in which a named file may be: security.md names tests, a tree of tasks the server's."""

MAX_CELL = 160
"""Characters of a table's cell; longer ones are text or a list."""

_NAMED_TEST = re.compile(r"`([a-z]+/test_\w+\.py)?(?:::(\w+))?`")
_LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
_FILE = re.compile(
    r"(?<![\w/.~$-])((?:[\w.-]+/)+[\w-]+\.(?:py|md|cfg|conf|csv|sql|html|lock|toml))\b"
)
_CODE = re.compile(r"`([^`\n]+)`")
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_PROMPT = re.compile(r"^\$ (.+)$", re.MULTILINE)
_COMMAND = re.compile(
    r"(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?"
    r"(quotestream|python -m \S+|python|pip|pytest|bench|scripts/\w+)(?: |$)(.*)"
)

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda each: each.name)


@each_document
def test_every_link_leads_somewhere(document):
    """A relative link names a file that exists, and an anchor one of its headings."""
    for link in _LINK.findall(_FENCE.sub("", document.read_text())):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target), link


@each_document
def test_every_file_exists(document):
    """`folder/file.py` is a file of the project; its path may begin in server/ or tests/."""
    for path in _FILE.findall(re.sub(r"https?://\S+", "", document.read_text())):
        assert any((folder / path).exists() for folder in FOLDERS), path


@each_document
def test_every_command_exists(document):
    """A command shown in code has the subcommand and the options with which it is shown."""
    for command in _commands(document.read_text()):
        _check_command(*command)


@each_document
def test_tables_are_readable(document):
    """No cell of a table is longer than MAX_CELL."""
    for line in document.read_text().splitlines():
        if line.startswith("|"):
            for cell in re.split(r"(?<!\\)\|", line):
                assert len(cell.strip()) <= MAX_CELL, cell


def test_every_test_that_shows_security_exists():
    """security.md names files and functions below tests/; a `::name` is in the file before it."""
    named = []
    for line in (ROOT / "docs" / "security.md").read_text().splitlines():
        file = ""
        for match in _NAMED_TEST.finditer(line):
            file = match[1] or file
            named.append((file, match[2]))
    assert len(named) > 50
    for file, function in named:
        text = (TESTS / file).read_text()
        assert function is None or f"def {function}(" in text, f"{file}::{function}"


def test_every_command_and_error_is_documented():
    """protocol.md names each command and each error code."""
    text = (ROOT / "docs" / "protocol.md").read_text()
    for command in get_args(Command):
        assert f'{{"action":"{command.__struct_config__.tag}"' in text
    for code in get_args(ErrorCode):
        assert f"`{code}`" in text


def test_unknown_commands_are_noticed():
    """The check of commands refuses a wrong subcommand, option, module and script."""
    for text in (
        "quotestream wach AAPL",
        ".venv/bin/quotestream serve --wrkers 2",
        "python -m bench brust",
        "python -m servr",
        "python -m tests.fuzz --htp",
        "scripts/tst",
    ):
        [command] = _commands(f"Run `{text}` now.")
        with pytest.raises(AssertionError):
            _check_command(*command)


def _anchors(document: Path) -> set[str]:
    """Return a document's anchors as GitHub makes them of its headings."""
    headings = _HEADING.findall(_FENCE.sub("", document.read_text()))
    return {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}


def _commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each program with its arguments, from inline code and after prompts."""
    fences = "\n".join(_FENCE.findall(text))
    shown = _CODE.findall(_FENCE.sub("", text)) + _PROMPT.findall(fences)
    for each in shown:
        if match := _COMMAND.fullmatch(each.split(" #")[0].strip()):
            yield match[1], shlex.split(match[2])


def _check_command(program: str, arguments: list[str]) -> None:
    """Assert that the program, its subcommand and its options exist."""
    if program in {"quotestream", "scripts/quotestream", "python -m server"}:
        _check_arguments(server_parser(), arguments)
    elif program == "scripts/serve":
        _check_arguments(server_parser(), ["serve", *arguments])
    elif program in {"bench", "scripts/bench", "python -m bench"}:
        _check_arguments(bench_parser(), arguments)
    elif program.startswith("python -m "):
        _check_module(program.removeprefix("python -m "), arguments)
    elif program.startswith("scripts/"):
        assert (ROOT / program).exists(), program
    for each in arguments:
        if each.startswith(("tests/", "scripts/")):
            assert (ROOT / each.partition("::")[0]).exists(), each


def _check_module(module: str, arguments: list[str]) -> None:
    """Assert that a module of the project can be run, and names its options."""
    if module in ("pytest", "pip"):
        return
    path = ROOT / module.replace(".", "/")
    main = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
    assert main.exists(), module
    for each in arguments:
        assert not each.startswith("-") or f'"{each}"' in main.read_text(), each


def _check_arguments(parser: argparse.ArgumentParser, arguments: list[str]) -> None:
    """Assert that a subcommand and its options exist; values may be placeholders."""
    choices: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            choices |= action.choices
    if not arguments or re.fullmatch(r"[A-Z…]+", arguments[0]):
        return
    if arguments[0].startswith("-"):
        command, options = parser, arguments
    else:
        assert arguments[0] in choices, arguments
        command, options = choices[arguments[0]], arguments[1:]
        if any(isinstance(action, argparse._SubParsersAction) for action in command._actions):
            _check_arguments(command, options)
            return
    for each in options:
        option = each.strip("[]").partition("=")[0]
        assert not option.startswith("-") or option in command._option_string_actions, arguments
