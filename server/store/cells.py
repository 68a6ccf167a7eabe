"""Reads the cells of instrument files as exchanges, brokers and spreadsheets write them."""

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal

from server.quotes.instrument import (
    CATEGORY_OF,
    CENT_DECIMALS,
    DEFAULT_CURRENCY,
    LARGEST_WHOLE,
    MAX_DECIMALS,
    MAX_NAME_LENGTH,
    SUB_DOLLAR_DECIMALS,
    InstrumentType,
    is_price,
    normalize_symbol,
)
from server.quotes.record import BadRecord, read_symbol
from server.quotes.snapshot import MAX_CODE_LENGTH

SHOWN = 60
"""Characters of a wrong cell that a message repeats."""

MISSING = frozenset(
    {"", "-", "--", "–", "—", "n/a", "n.a.", "na", "nan", "null", "none", "nil", "unch", "#n/a"}
)
"""Texts of a cell without a value, in lower case."""

_UNITS = {"k": 3, "m": 6, "mn": 6, "b": 9, "bn": 9, "t": 12, "tn": 12}
"""Powers of ten by suffix."""

MAX_NUMBER_LENGTH = 100
"""Characters of a number. The pattern takes the square of it in time."""

CURRENCY_SIGNS = "$€£¥₹₩₺₽₫₱฿₪₴₦₿"

_CURRENCY = rf"(?:[a-z]{{0,2}}[{CURRENCY_SIGNS}])"
"""A sign in front of a number or behind it, such as the HK$ of `HK$ 600.5`."""

_NUMBER = re.compile(
    rf"([-+]?)\s*(?:{_CURRENCY}|[a-z]{{3}}\s)?\s*([-+]?)"
    r"([0-9.,'’\s]+(?:e[-+]?[0-9]+)?)(mn|bn|tn|[kmbt]?)"
    rf"(?:\s*{_CURRENCY}|(?<=\s)[a-z]{{3}})?"
)

_SIGNS = str.maketrans("\u2212\u2013\ufe63\uff0d\uff0b", "----+")
"""The signs that word processors and spreadsheets write for a minus or a plus."""

_DECIMAL_COMMA = re.compile(r"[0-9],(?:[0-9]{1,2}|[0-9]{4,})\D*$")
_DECIMAL_POINT = re.compile(r"[0-9]\.(?:[0-9]{1,2}|[0-9]{4,})\D*$")
_FORMULA = re.compile(r'="([^"]*)"')
_GROUPS = re.compile(r"['’\s]")

_KINDS: Mapping[InstrumentType, str] = {
    "STOCK": "common stock, cs, equity, share, shares, ordinary shares, ordinary share, common shares, "
    "preferred stock, preferred, pfd, adr, adrc, depositary receipt, american depositary receipt, gdr, "
    "reit, n",
    "ETF": "exchange traded fund, exchange-traded fund, exchange traded note, exchange-traded note, "
    "etn, etp, y",
    "INDEX": "indices, indexes",
    "FUND": "mutual fund, mutualfund, closed-end fund, closed end fund, cef, investment fund, "
    "unit trust",
    "CRYPTO": "cryptocurrency, crypto currency, coin, token, digital asset",
    "FX": "forex, currency, currency pair, foreign exchange",
    "FUTURE": "futures, fut",
    "OPTION": "options, opt, equity option",
    "BOND": "bonds, fixed income, note, notes, treasury",
    "OTHER": "warrant, warrants, commodity, right, rights, unit, units, certificate, "
    "structured product",
}
"""Other words for each type."""

_TYPE_OF: Mapping[str, InstrumentType] = {
    word: kind
    for kind, words in _KINDS.items()
    for word in (kind.lower(), str(CATEGORY_OF[kind]), *words.split(", "))
}
"""The type of instrument that a cell in lower case means: a type, a category's number, or a word."""

_CODE = re.compile(r"[A-Z0-9][A-Z0-9._$-]{0,19}")
"""A currency: three letters of ISO 4217, or the code of a crypto currency."""

_ISIN = re.compile(r"[A-Z]{2}[A-Z0-9]{9}[0-9]")
"""ISO 6166."""

PENCE = {"GBp": "GBX", "ZAc": "ZAX", "ILa": "ILX"}
"""Vendors write a hundredth of a currency with a small letter. In upper case it would be the whole."""


class BadCell(ValueError):
    """A cell is not what its column holds; the message says what is wrong."""


def is_missing(text: str) -> bool:
    """Return whether a cell has no value."""
    return text.strip().lstrip(CURRENCY_SIGNS).strip().lower() in MISSING


def plain_cell(text: str) -> str:
    """Return the text of a cell that a spreadsheet keeps as one: `="0700"`."""
    match = _FORMULA.fullmatch(text.strip())
    return match[1] if match else text


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


def read_kind(text: str) -> InstrumentType:
    """Return the instrument's type. Errors: BadCell."""
    if is_missing(text):
        return "STOCK"
    kind = _TYPE_OF.get(" ".join(text.lower().split()))
    if kind is None:
        raise BadCell(f"type is not one of {', '.join(_KINDS)}: {text[:SHOWN]!r}")
    return kind


def read_currency(text: str) -> str:
    """Return a currency's code in upper case. Errors: BadCell."""
    if is_missing(text):
        return DEFAULT_CURRENCY
    code = PENCE.get(text.strip(), text.strip().upper())
    if not _CODE.fullmatch(code):
        raise BadCell(f"not the code of a currency: {text[:SHOWN]!r}")
    return code


def read_exchange(text: str) -> str | None:
    """Return the MIC or name of an exchange, None without one. Errors: BadCell."""
    if is_missing(text):
        return None
    name = read_name(text)
    if len(name) > MAX_CODE_LENGTH:
        raise BadCell(f"not an exchange of up to {MAX_CODE_LENGTH} characters: {text[:SHOWN]!r}")
    return name


def read_isin(text: str) -> str | None:
    """Return the ISIN, None without one. Errors: BadCell."""
    if is_missing(text):
        return None
    isin = "".join(text.split()).upper()
    if not _ISIN.fullmatch(isin):
        raise BadCell(f"not an ISIN: {text[:SHOWN]!r}")
    return isin


def read_number(text: str, *, decimal_comma: bool = False) -> Decimal | None:
    """Return the number in `$1,234.56`, `(37.63)`, `1.2T` or `7.32e11`; None if it is none."""
    written = text.strip().translate(_SIGNS)
    # Accountants write a number below zero in parentheses.
    below = written[:1] == "(" and written[-1:] == ")"
    written = f"-{written[1:-1]}" if below else written
    match = _NUMBER.fullmatch(written.lower()) if len(written) <= MAX_NUMBER_LENGTH else None
    if match is None:
        return None
    digits = _GROUPS.sub("", match[3])
    digits = digits.replace(".", "").replace(",", ".") if decimal_comma else digits.replace(",", "")
    try:
        return Decimal(match[1] + match[2] + digits).scaleb(_UNITS.get(match[4], 0))
    except ArithmeticError:  # two points or signs, an exponent beyond all bounds
        return None


def read_price(
    text: str, decimals: int | None, *, decimal_comma: bool = False, signed: bool = False
) -> tuple[float, int]:
    """Return a price and its tick precision.

    Arguments:
        decimals: the tick precision, to which the price is rounded. None for the decimals that the
            text shows: 2 at least, and 4 below one (SEC Regulation NMS, Rule 612).
        signed: whether the price may be zero or negative.

    Errors: BadCell.
    """
    number = read_number(text, decimal_comma=decimal_comma)
    if number is None or not number.is_finite():
        raise BadCell(f"not a price: {text[:SHOWN]!r}")
    if decimals is None:
        decimals = max(_decimals_of(number), CENT_DECIMALS)
        decimals = max(decimals, SUB_DOLLAR_DECIMALS) if abs(number) < 1 else decimals
    price = float(round(number, decimals)) if abs(number) < LARGEST_WHOLE else float("inf")
    if not is_price(price, decimals, signed=signed):
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
