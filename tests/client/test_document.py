"""The client's copy of the quotes, and its detection of missed versions."""

from typing import Any

from quotestream.document import Document
from server.quotes.position import Position, parse_position


def patch(operation: str, version: int, symbol: str = "A", price: float = 1.0) -> dict[str, Any]:
    """Return a `quotes_patch` of one symbol."""
    path = f"/quotes/{symbol}"
    values: dict[str, Any] = {"add": {"value": {"current_price": price}}, "remove": {}}
    fields = values.get(operation, {"value": price})
    path += "/current_price" if operation == "replace" else ""
    return {
        "versions": {symbol: version},
        "operations": [{"op": operation, "path": path, **fields}],
    }


def test_patches_are_applied_in_order():
    """The operations add, replace and remove are applied in order."""
    document = Document()
    assert document.apply(patch("add", 7)) == []
    assert document.apply(patch("replace", 8, price=2.0)) == []
    assert document.quotes == {"A": {"current_price": 2.0}}
    assert document.versions == {"A": 8}
    assert document.apply(patch("remove", 8)) == []
    assert document.quotes == {}


def test_a_skipped_version_is_noticed():
    """A `replace` that skips a version makes the symbol due for a resync."""
    document = Document()
    document.apply(patch("add", 7))
    assert document.apply(patch("replace", 9, price=2.0)) == ["A"]
    assert document.apply(patch("replace", 10, price=3.0)) == []


def test_a_full_quote_may_jump():
    """An `add` may skip versions, as it contains all merged updates."""
    document = Document()
    document.apply(patch("add", 7))
    assert document.apply(patch("add", 70)) == []
    assert document.apply(patch("replace", 71)) == []


def test_position_is_what_is_proven():
    """A position has the newest epoch's symbols, without removed, missed and older ones."""
    document = Document()
    assert document.position == ""
    document.apply(patch("add", 7, "OLD") | {"epoch": "1"})
    for symbol in ("A", "B", "C"):
        document.apply(patch("add", 7, symbol) | {"epoch": "2"})
    document.apply(patch("replace", 8, "A"))
    document.apply(patch("replace", 9, "B"))
    document.apply(patch("remove", 7, "C"))
    document.apply(patch("replace", 8, "OLD"))
    assert document.position == "2:A=8"
    document.apply(patch("add", 9, "B") | {"epoch": "2"})
    assert parse_position(document.position) == Position("2", {"A": 8, "B": 9})


def test_operations_of_several_kinds_count_by_symbol():
    """One message may add, change and remove quotes: only a change has to follow the one before."""
    document = Document()
    for symbol in ("A", "B", "C"):
        document.apply(patch("add", 7, symbol) | {"epoch": "1"})
    several = [patch("remove", 7, "A"), patch("replace", 9, "B"), patch("add", 70, "C")]
    message = {
        "versions": {
            symbol: version for each in several for symbol, version in each["versions"].items()
        },
        "operations": [operation for each in several for operation in each["operations"]],
        "epoch": "1",
    }
    assert document.apply(message) == ["B"]
    assert document.quotes.keys() == document.versions.keys() == {"B", "C"}
    assert document.missed == {"B"}
    assert document.position == "1:C=70"


def test_change_that_cannot_be_applied_is_noticed():
    """A field that the quote does not have, as one from an older server: only the full quote helps."""
    document = Document()
    document.apply(patch("add", 7) | {"epoch": "1"})
    newer = {"op": "replace", "path": "/quotes/A/mid", "value": 1.5}
    message = patch("replace", 8, price=2.0)
    assert document.apply(message | {"operations": [newer, *message["operations"]]}) == ["A"]
    assert document.quotes == {"A": {"current_price": 2.0}}
    assert document.missed == {"A"}
    assert document.position == "1:"
    assert document.apply(patch("replace", 9) | {"operations": [newer]}) == []
    document.apply(patch("add", 9) | {"epoch": "1"})
    assert document.missed == set()
