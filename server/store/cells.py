"""Reads the cells of instrument files as exchanges, brokers and spreadsheets write them."""

import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Literal

from server.quotes.instrument import (
    CENT_DECIMALS,
    LARGEST_WHOLE,
    MAX_DECIMALS,
    MAX_NAME_LENGTH,
    SUB_DOLLAR_DECIMALS,
    is_price,
    normalize_symbol,
)
from server.quotes.record import BadRecord, read_symbol

SHOWN = 60
"""Characters of a wrong cell that a message repeats."""

MISSING = frozenset({"", "-", "--", "n/a", "na", "nan", "null", "none", "unch", "#n/a"})
"""Texts of a cell without a value, in lower case."""

_UNITS = {"k": 3, "m": 6, "mn": 6, "b": 9, "bn": 9, "t": 12, "tn": 12}
"""Powers of ten by suffix."""

_NUMBER = re.compile(r"([-+]?)[$€£¥]?([-+]?)([0-9.,'\s]+(?:e[-+]?[0-9]+)?)(mn|bn|tn|[kmbt]?)")
_DECIMAL_COMMA = re.compile(r"[0-9],(?:[0-9]{1,2}|[0-9]{4,})\D*$")
_DECIMAL_POINT = re.compile(r"[0-9]\.(?:[0-9]{1,2}|[0-9]{4,})\D*$")
_GROUPS = re.compile(r"['\s]")

_KINDS = {
    "stock": "STOCK",
    "common stock": "STOCK",
    "cs": "STOCK",
    "equity": "STOCK",
    "share": "STOCK",
    "shares": "STOCK",
    "ordinary shares": "STOCK",
    "adr": "STOCK",
    "reit": "STOCK",
    "n": "STOCK",
    "etf": "ETF",
    "exchange traded fund": "ETF",
    "exchange-traded fund": "ETF",
    "y": "ETF",
}


class BadCell(ValueError):
    """A cell is not what its column holds; the message says what is wrong."""


def is_missing(text: str) -> bool:
    """Return whether a cell has no value."""
    return text.strip().lower() in MISSING


def has_decimal_comma(cells: Iterable[str]) -> bool:
    """Return whether numbers are written as `1.234,56`: some cell proves it."""
    return any("." not in cell[cell.rfind(",") :] and _DECIMAL_COMMA.search(cell) for cell in cells)


def has_decimal_point(cells: Iterable[str]) -> bool:
    """Return whether numbers are written as `1,234.56`: some cell proves it."""
    return any(_DECIMAL_POINT.search(cell) and "," not in cell[cell.find(".") :] for cell in cells)


def read_symbol_cell(text: str) -> str:
    """Return the symbol in its one spelling. Errors: BadCell; also for a comma or a space within it,
    with which it could not be asked for.
    """
    symbol = normalize_symbol(text)
    if "," in symbol or any(each.isspace() for each in symbol):
        raise BadCell(f"not a symbol, which has no comma and no space: {text[:SHOWN]!r}")
    try:
        return read_symbol(symbol)
    except BadRecord as bad:
        raise BadCell(f"{bad}: {text[:SHOWN]!r}") from None


def read_name(text: str) -> str:
    """Return the name in one line, cut to MAX_NAME_LENGTH characters. Errors: BadCell."""
    printable = "".join(each if each.isprintable() else " " for each in text)
    name = " ".join(printable.split())[:MAX_NAME_LENGTH].rstrip()
    if not name:
        raise BadCell(f"not a name of up to {MAX_NAME_LENGTH} characters: {text[:SHOWN]!r}")
    return name


def read_kind(text: str) -> Literal["STOCK", "ETF"]:
    """Return the instrument's type. Errors: BadCell."""
    if is_missing(text):
        return "STOCK"
    kind = _KINDS.get(" ".join(text.lower().split()))
    if kind is None:
        raise BadCell(f"type is neither STOCK nor ETF: {text[:SHOWN]!r}")
    return "ETF" if kind == "ETF" else "STOCK"


def read_number(text: str, *, decimal_comma: bool = False) -> Decimal | None:
    """Return the number in `$1,234.56`, `1.2T` or `7.32e11`; None if it is none."""
    match = _NUMBER.fullmatch(text.strip().lower())
    if match is None:
        return None
    digits = _GROUPS.sub("", match[3])
    digits = digits.replace(".", "").replace(",", ".") if decimal_comma else digits.replace(",", "")
    try:
        return Decimal(match[1] + match[2] + digits).scaleb(_UNITS.get(match[4], 0))
    except ArithmeticError:  # two points or signs, an exponent beyond all bounds
        return None


def read_price(
    text: str, decimals: int | None, *, decimal_comma: bool = False
) -> tuple[float, int]:
    """Return a price in US dollars and its tick precision.

    Arguments:
        decimals: the tick precision, to which the price is rounded. None for the decimals that the
            text shows: 2 at least, and 4 below a dollar (SEC Regulation NMS, Rule 612).

    Errors: BadCell.
    """
    number = read_number(text, decimal_comma=decimal_comma)
    if number is None or not number.is_finite():
        raise BadCell(f"not a price: {text[:SHOWN]!r}")
    if decimals is None:
        decimals = max(_decimals_of(number), CENT_DECIMALS)
        decimals = max(decimals, SUB_DOLLAR_DECIMALS) if abs(number) < 1 else decimals
    price = float(round(number, decimals)) if abs(number) < LARGEST_WHOLE else float("inf")
    if not is_price(price, decimals):
        raise BadCell(f"not a price: {text[:SHOWN]!r} with {decimals} decimals")
    return price, decimals


def read_whole(column: str, text: str, most: int, *, decimal_comma: bool = False) -> int | None:
    """Return a whole number from 0 to `most`, None without one. Decimals of `1234.56` are cut off by
    rounding. Errors: BadCell.
    """
    if is_missing(text):
        return None
    number = read_number(text, decimal_comma=decimal_comma)
    if number is None or not number.is_finite() or not 0 <= number <= most:
        raise BadCell(f"{column} is not a whole number from 0 to {most}: {text[:SHOWN]!r}")
    return round(number)


def _decimals_of(number: Decimal) -> int:
    """Return the decimals that a price shows. More than MAX_DECIMALS are a float's noise."""
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int):
        return 0
    if -exponent <= MAX_DECIMALS:
        return max(0, -exponent)
    exponent = round(number, MAX_DECIMALS).normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0
