"""Lists of adjustments say which instrument a symbol belongs to."""

import pytest

from server.quotes.adjustment import fresh, price_adjustments, succeeding, up_to_date
from server.quotes.identity import former_symbols, had_symbol, is_continued, same_instrument
from server.quotes.snapshot import MAX_ADJUSTMENTS
from tests.fanout.test_listing import listed


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("", "", True),
        ("", "4:1", True),
        ("4:1", "fresh@5", True),
        ("", "FB@1", False),
        ("FB@1 2:1", "FB@1", True),
        ("FB@1", "FB@2", False),
        ("", "META@1 METV@2", True),
        ("2:1", "2:1 META@1 METV@2 fresh@3", True),
        ("FB@1", "FB@1 META@2 X@3", True),
        ("FB@1", "FB@1 X@3", False),
        ("FB@1", "X@1 META@2", False),
    ],
)
def test_symbol_is_of_one_instrument(one, other, same):
    """Splits do not change the instrument, nor does a rename to another symbol and back."""
    assert same_instrument("META", one, other) is same
    assert same_instrument("META", other, one) is same


def test_each_symbol_can_be_read_back():
    """Also one with spaces, percent signs or the separator."""
    symbols = ["FB", "BRK B", "50%", "A%20B", "X@1", "FRESH", "Ü"]
    entries = [had_symbol(symbol, time) for time, symbol in enumerate(symbols)]
    found = [*former_symbols(" ".join(["4:1", *entries, fresh(9)]))]
    assert [symbol for symbol, _ in found] == symbols[::-1]
    assert found[-1][1] == "4:1"
    assert price_adjustments(" ".join(["4:1", *entries, fresh(9)])) == "4:1 fresh@9"


def test_former_symbol_is_known_after_splits_only():
    """Another rename in between makes it another symbol's list."""
    assert is_continued("", "4:1")
    assert is_continued("FB@1", "FB@1 4:1")
    assert not is_continued("", "FB@1")
    assert not is_continued("2:1", "4:1")


def test_rename_changes_no_price_and_counts_once():
    """The entry makes no version: the rename itself does."""
    old = listed("FB")
    row = succeeding(old, "META", 1, 5)
    assert (row.symbol, row.adjustments, row.version) == ("META", "FB@5", 1)
    assert up_to_date(old, row.instrument) == row


def test_list_that_is_full_begins_anew():
    """An instrument may be renamed for ever."""
    row = listed("FB")
    for time in range(300):
        row = succeeding(row, ("META", "FB")[time % 2], 1, 1_764_012_345_678_901 + time)
        assert len(row.adjustments) <= MAX_ADJUSTMENTS
