"""Durations as people write them."""

import pytest

from server.quotes.duration import SHOWN, parse_duration, seconds_of


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("4s", 4.0), ("1.5S", 1.5), (" 30 m ", 1800.0), ("2h", 7200.0),
     ("7d", 604800.0), ("12", 12.0), ("0", 0.0)],
)  # a table # fmt: skip
def test_durations_are_seconds(text, seconds):
    """A number alone is seconds; case and space do not matter."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1s", "1.s", "1 week", "1e3", "٣s", "1s 2"])
def test_anything_else_is_none(text):
    """The message repeats it."""
    with pytest.raises(ValueError, match="is not a duration") as error:
        parse_duration(text)
    assert repr(text) in str(error.value)


def test_only_a_part_of_a_long_text_is_repeated():
    """A log line stays a line."""
    with pytest.raises(ValueError, match=f"^'{'x' * SHOWN}' is not a duration$"):
        parse_duration("x" * 1000)


@pytest.mark.parametrize(
    ("given", "seconds"), [("4s", 4.0), (0, 0.0), (0.5, 0.5), (5e-05, 5e-05), (1e16, 1e16)]
)
def test_number_is_seconds(given, seconds):
    """As JSON has it: also with an exponent, which no text of a duration has."""
    assert seconds_of(given) == seconds
    assert isinstance(seconds_of(given), float)


def test_negative_number_is_not_a_duration():
    """The message repeats it."""
    with pytest.raises(ValueError, match=r"^-1 is not a duration$"):
        seconds_of(-1)
