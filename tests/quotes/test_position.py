"""A client's position: the server reads what the client writes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.quotes.instrument import normalize_symbol
from server.quotes.position import Position, format_position, parse_position

symbols = st.text(min_size=1, max_size=50).map(normalize_symbol).filter(bool)
versions = st.dictionaries(symbols, st.integers(0, 10**18 - 1))


@given(st.text(min_size=1).filter(lambda epoch: ":" not in epoch), versions)
def test_position_is_read_as_it_was_written(epoch, held):
    """Symbols may contain anything but commas. Symbols with a comma are left out."""
    text = format_position(epoch, held.items())
    named = {symbol: version for symbol, version in held.items() if "," not in symbol}
    assert parse_position(text) == Position(epoch, named)


@given(st.text())
def test_any_text_is_a_position_or_an_error(text):
    """Any other text raises ValueError and nothing else."""
    try:
        position = parse_position(text)
    except ValueError:
        return
    assert text.startswith(f"{position.epoch}:")


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "7",
        "7,AAPL=1",
        ":AAPL=1",
        "7:AAPL",
        "7:AAPL=",
        "7:=1",
        "7:AAPL=-1",
        "7:AAPL=1.0",
        "7:AAPL=1 2",
        "7:AAPL=" + "9" * 5000,
        "7:AAPL=1,MSFT",
        "7:AAPL=²",
    ],
)
def test_half_a_position_is_none(text):
    """A position needs an epoch, a colon, and versions that are numbers."""
    with pytest.raises(ValueError, match=r"epoch|SYMBOL=version"):
        parse_position(text)


def test_symbols_are_written_as_in_symbols():
    """Symbols may be in lower case and have space around. Empty parts are ignored."""
    assert parse_position("7: aapl=1,,brk.b=2,") == Position("7", {"AAPL": 1, "BRK.B": 2})


def test_error_says_what_is_missing():
    """The part that is wrong is repeated, up to sixty characters of it."""
    with pytest.raises(ValueError, match=r"^does not start with an epoch and a colon$"):
        parse_position("AAPL=1")
    with pytest.raises(ValueError, match=f"^'{'A' * 60}' is "):
        parse_position("7:MSFT=1," + "A" * 100)
