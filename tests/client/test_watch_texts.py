"""The texts that `watch` writes: on a screen, as lines, and as JSON."""

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from server.client.document import Document
from server.client.figures import age_text, clean
from server.client.lines import Busiest, json_objects, print_json, print_message
from server.client.painting import PLAIN
from server.client.sparkline import BLOCKS
from server.client.table import HELP, KEYS, Screen
from tests.client.patches import NOW, message


@pytest.mark.parametrize(
    "text", ["a\x1b[2Jb", "\x9b31m", "x\r\ny", "\u202eevil", "a\u2066b", "\u2028", "\x7f", "\ue000"]
)
def test_nothing_from_the_server_commands_the_terminal(text, capsys):
    """Names, symbols, reasons and errors are cleaned on each way to the terminal."""
    assert all(each.isprintable() for each in clean(text))
    document, screen, output = Document(), Screen(clock=lambda: NOW, has_keys=True), StringIO()
    value = {"current_price": 1.0, "name": text, "currency": text, "last_updated": text * 9}
    add = {"op": "add", "path": f"/quotes/{text}", "value": value}
    patch = {"type": "quotes_patch", "versions": {text: 1}, "operations": [add]}
    document.apply(patch)
    screen.update(document, patch)
    screen.market.put_before(text, [(NOW - 60, 1.0), (NOW - 30, 2.0)])
    others = (
        {"type": "error", "message": text, "symbols": [text]},
        {"type": "status", "status": text, "reason": text},
        {"type": "connection", "problem": text, "retry_in": 1.0},
    )
    for other in others:
        screen.update(document, other)
        screen.is_charted = not screen.is_charted
        Console(width=120, file=output).print(screen)
    for each in (patch, *others):
        print_message(document, each, ["currency"])
        print_json(document, each)
    printed = output.getvalue() + capsys.readouterr().out
    assert all(each.isprintable() or each == "\n" for each in printed)


@pytest.mark.parametrize("width", [20, 40, 80, 250])
@pytest.mark.parametrize("height", [5, 7, 8, 24, 100])
def test_state_is_in_sight_at_any_size(width, height):
    """A lost connection with a long reason takes the place of what can be left out."""
    document, screen = Document(), Screen(clock=lambda: NOW, has_keys=True)
    patch = message({}, {f"S{number:03}": 1234.5 for number in range(513)})
    patch["versions"] = {f"S{number:03}": 1 for number in range(513)}
    document.apply(patch)
    screen.update(document, patch)
    lost = {"type": "connection", "problem": "no route to the host " * 9, "retry_in": 7.0}
    for other, state in ((patch, "● live"), (lost, "✕ reconnecting in")):
        screen.update(document, other)
        output = StringIO()
        Console(width=width, height=height, file=output).print(screen)
        lines = output.getvalue().splitlines()
        assert len(lines) == height
        assert state in lines[-1]
        assert max(map(len, lines)) <= width
        assert "1,234.50" in lines[height - 3 if height < 8 else 2]
        if height >= 8 and width >= 40:
            assert "? all keys" in lines[-2]


def test_names_of_any_script_stay():
    """Only what a terminal could obey is replaced."""
    for text in ("Nestlé", "日本電信電話", "Газпром", "O’Reilly – é"):
        assert clean(text) == text


def test_ages_have_their_largest_unit():
    """Never negative, never longer than four characters within a year."""
    texts = [age_text(seconds) for seconds in (-1, 0.9, 59, 60, 3599, 3600, 86_400 * 364)]
    assert texts == ["0s", "0s", "59s", "1m", "59m", "1h", "364d"]


def test_json_of_removals_and_renames():
    """A symbol that went away is an object, too, with its new name if it has one."""
    document = Document()
    document.apply(message({"FB": 1}, {"FB": 1.0}))
    remove = {"op": "remove", "path": "/quotes/FB"}
    patch = {"type": "quotes_patch", "versions": {"FB": 1}, "operations": [remove]}
    document.apply(patch)
    renamed = patch | {"renamed": {"FB": "META"}}
    assert [*json_objects(document, patch)] == [{"type": "removed", "symbol": "FB"}]
    assert [*json_objects(document, renamed)] == [
        {"type": "removed", "symbol": "FB", "renamed": "META"}
    ]


def test_busiest_passes_on_changes_only():
    """Opening quotes are not changes; other messages pass."""
    shown: list[dict[str, Any]] = []
    busiest = Busiest(1, lambda _, message: shown.append(message), lambda: NOW)
    document = Document()
    busiest(document, message({"A": 1, "B": 1}, {"A": 1.0, "B": 1.0}))
    assert not shown
    busiest(document, message({"A": 2}))
    busiest(document, message({"B": 2}))
    busiest(document, {"type": "status"})
    assert [each.get("versions", each["type"]) for each in shown] == [{"A": 2}, "status"]


def test_drawing_has_ascii_for_each_character():
    """A terminal without Unicode gets no question marks."""
    screen = Screen(clock=lambda: NOW + 100, has_keys=True)
    document = Document()
    for version, price in ((1, 1.0), (2, 2.0), (3, 1.5)):
        patch = message({"A": version}, {"A": price})
        document.apply(patch)
        screen.update(document, patch)
    screen.market.put_before("A", [(NOW - 60, 1.0), (NOW - 30, 2.0)])
    output = StringIO()
    for screen.is_helping in (False, True):
        Console(width=120, height=40, file=output).print(screen)
    text = output.getvalue() + BLOCKS + "".join(KEYS) + "".join(keys for keys, _ in HELP)
    assert text.translate(PLAIN).isascii()


def test_help_ends_with_the_keys_that_leave_it():
    """The keys of a chart have no effect that could be seen there."""
    screen = Screen(clock=lambda: NOW, has_keys=True)
    screen.is_helping = True
    output = StringIO()
    Console(width=80, height=24, file=output).print(screen)
    assert output.getvalue().splitlines()[-2].split("  ") == [" Esc back", "q quit"]
