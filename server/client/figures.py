"""Formats values from the server for a terminal. It lets no control character through."""

import unicodedata
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal

PRICES = {"change", "base_price", "previous_close", "open", "high", "low"}
"""Fields that are shown with a price's decimals."""

HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
"""Unicode categories that could move the cursor, change the direction or break the line."""

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
"""Stands for a character that the terminal does not get."""


def clean(text: str) -> str:
    """Return `text` without characters that a terminal could take for a command."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(REPLACEMENT if unicodedata.category(each) in HIDDEN else each for each in text)


def percent_text(quote: Mapping[str, Any]) -> str:
    """Format the change in percent. There is none from a base price that is not above zero."""
    percent = quote.get("change_percent")
    return "" if percent is None else f"{percent:+.2f}"


def volume_text(quote: Mapping[str, Any]) -> str:
    """Format the volume; empty if the client did not ask for it."""
    return number_text(quote["volume"]) if "volume" in quote else ""


def side_text(quote: Mapping[str, Any], side: Literal["bid", "ask"]) -> str:
    """Format the price of one side of the book; empty if it is not known."""
    return price_text(quote.get(side))


def value_text(quote: Mapping[str, Any], field: str) -> str:
    """Format any field; empty if it is not known."""
    value = quote.get(field)
    if field in PRICES:
        return price_text(value)
    return number_text(value) if isinstance(value, int | float) else clean(value or "")


def number_text(value: float) -> str:
    """Format a number with its own decimals, never with an exponent."""
    return f"{Decimal(repr(value)):,f}"


def price_text(price: float | None, *, sign: str = "-") -> str:
    """Format a price with its own decimals, but at least two; empty before the first price."""
    if price is None:
        return ""
    return f"{price:{sign},.{decimals_of(price)}f}"


def decimals_of(price: float) -> int:
    """Return the decimals that a price is shown with."""
    _, _, decimals = f"{Decimal(repr(price)):f}".partition(".")
    return max(2, len(decimals))


def age_text(seconds: float) -> str:
    """Format an age in its largest whole unit: `4s`, `12m`, `3h`, `9d`."""
    whole = max(0, int(seconds))
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if whole >= size:
            return f"{whole // size}{unit}"
    return f"{whole}s"
