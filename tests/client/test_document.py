"""The client's copy of the quotes, and its proof that nothing was missed."""

from typing import Any

from server.client.document import Document
from server.quotes.position import Position, parse_position


def patch(operation: str, version: int, symbol: str = "A", price: float = 1.0) -> dict[str, Any]:
    """A `quotes_patch` about one symbol."""
    path = f"/quotes/{symbol}"
    values: dict[str, Any] = {"add": {"value": {"current_price": price}}, "remove": {}}
    fields = values.get(operation, {"value": price})
    path += "/current_price" if operation == "replace" else ""
    return {
        "versions": {symbol: version},
        "operations": [{"op": operation, "path": path, **fields}],
    }


def test_patches_are_applied_in_order():
    """Add, replace, remove."""
    document = Document()
    assert document.apply(patch("add", 7)) == []
    assert document.apply(patch("replace", 8, price=2.0)) == []
    assert document.quotes == {"A": {"current_price": 2.0}}
    assert document.versions == {"A": 8}
    assert document.apply(patch("remove", 8)) == []
    assert document.quotes == {}


def test_a_skipped_version_is_noticed():
    """After a `replace` the version is the next one, or the symbol has to be resynced."""
    document = Document()
    document.apply(patch("add", 7))
    assert document.apply(patch("replace", 9, price=2.0)) == ["A"]
    assert document.apply(patch("replace", 10, price=3.0)) == []


def test_a_full_quote_may_jump():
    """`add` stands for whatever was merged into it."""
    document = Document()
    document.apply(patch("add", 7))
    assert document.apply(patch("add", 70)) == []
    assert document.apply(patch("replace", 71)) == []


def test_position_is_what_is_proven():
    """Of the newest epoch, without what was removed, missed or is of an older one."""
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
