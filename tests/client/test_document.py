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
