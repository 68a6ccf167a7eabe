"""The keys of `watch`, the chosen row, and the order of the rows."""

from server.client.columns import COLUMNS, Row
from server.client.cursor import Cursor, Sorting
from server.client.keys import Key, parse_keys, parse_typed
from server.client.seen import PricesSeen
from tests.client.patches import NOW


def test_letters_are_text_while_the_user_types():
    """Sequences keep their meaning, and characters of several bytes stay whole."""
    typed = "aq日\x7f\x1b[A\r".encode()
    assert [*parse_typed(typed)] == ["a", "q", "日", Key.BACKSPACE, Key.UP, Key.ENTER]
    assert [*parse_keys(b"\x1b[3~asrpct?\x1b")] == [
        Key.REMOVE,
        Key.ADD,
        Key.SORT,
        Key.REVERSE,
        Key.PAUSE,
        Key.CHART,
        Key.SPAN,
        Key.HELP,
        Key.ESCAPE,
    ]
    # The end of an unknown sequence is not a key.
    assert [*parse_keys(b"\x1b[1;5q\x1b[99a")] == []


def test_choice_stays_when_rows_are_sorted_anew():
    """It is a symbol, not a place, and it is always among the rows that are seen."""
    cursor = Cursor()
    assert cursor.window(["A", "B", "C", "D"], 2) == ["A", "B"]
    cursor.move(Key.DOWN)
    assert cursor.chosen == "B"
    assert cursor.window(["C", "D", "A", "B"], 2) == ["A", "B"]
    cursor.leave()
    assert cursor.window(["C", "D", "A"], 2) == ["D", "A"]
    assert cursor.chosen == "A"
    assert cursor.window([], 2) == []
    assert cursor.chosen == ""
    cursor.leave()
    cursor.move(Key.DOWN)


def row(symbol: str, price: float | None) -> Row:
    return Row(symbol, {"current_price": price}, 1, PricesSeen(), 0, NOW)


def test_rows_without_a_value_come_last():
    """In both directions; symbols with the same value stay in their order."""
    prices = {"A": 2.0, "B": None, "C": 1.0, "D": 2.0}
    sorting = Sorting()
    price = next(each for each in COLUMNS if each.heading == "price")
    sorting.step([COLUMNS[0], price], 1)

    def order() -> str:
        return "".join(sorting.sorted([*prices], lambda symbol: row(symbol, prices[symbol])))

    assert order() == "ADCB"
    sorting.reverse()
    assert order() == "CADB"


def test_every_column_can_be_sorted():
    """No key fails for a quote without values, nor for one with all of them."""
    full = {
        "current_price": 1.0,
        "bid": 1.0,
        "last_updated": "2026-01-01T00:00:00Z",
        "volume": 1.0,
        "change": 1.0,
        "change_percent": 1.0,
    }
    for column in COLUMNS:
        for quote in ({}, full):
            each = Row("A", quote, 1, PricesSeen(), 0, NOW)
            column.key(each)
            column.cell(each)
