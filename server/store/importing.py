"""Reads instruments from a CSV file, all or none."""

import csv
from contextlib import suppress
from pathlib import Path

from server.quotes.instrument import (
    CENT_DECIMALS,
    LARGEST_WHOLE,
    MAX_DECIMALS,
    MAX_NAME_LENGTH,
    Instrument,
    is_price,
    normalize_symbol,
)
from server.quotes.record import BadRecord, read_symbol

REQUIRED = ("symbol", "name", "price")


class BadFile(Exception):
    """The file cannot be imported. The message is one line that names file and line."""


def read_instruments(path: Path) -> list[Instrument]:
    """Return the instruments of a file that begins with a header.

    The columns `symbol`, `name` and `price` are required. The price is in US dollars, and `change` is
    counted from it. `type` (STOCK or ETF), `market_cap`, `price_decimals` and `price_source` are
    optional. A `price_source` of `made-up` marks an invented price. Other columns are ignored.

    Errors: BadFile.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            return _read(csv.DictReader(lines), path)
    except OSError as error:
        raise BadFile(f"cannot read {path}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadFile(f"cannot read {path}: {error}") from None


def _read(rows: "csv.DictReader[str]", path: Path) -> list[Instrument]:
    missing = [name for name in REQUIRED if name not in (rows.fieldnames or ())]
    if missing:
        raise BadFile(f"{path}: the header has no column {', '.join(missing)}")
    found: dict[str, Instrument] = {}
    for row in rows:
        try:
            instrument = _instrument(row)
        except ValueError as error:
            raise BadFile(f"{path} line {rows.line_num}: {error}") from None
        if instrument.symbol in found:
            raise BadFile(f"{path} line {rows.line_num}: {instrument.symbol} for a second time")
        found[instrument.symbol] = instrument
    return list(found.values())


def _instrument(row: dict[str, str]) -> Instrument:
    """Read one row. Errors: ValueError."""
    if None in row or None in row.values():
        raise ValueError("another number of fields than the header has")
    symbol, name = _symbol(row["symbol"]), row["name"].strip()
    if not 0 < len(name) <= MAX_NAME_LENGTH or not name.isprintable():
        raise ValueError(f"not a name of up to {MAX_NAME_LENGTH} characters: {name[:60]!r}")
    kind = row.get("type", "").strip().upper() or "STOCK"
    if kind not in ("STOCK", "ETF"):
        raise ValueError(f"type is neither STOCK nor ETF: {row['type']!r}")
    decimals = _whole(row, "price_decimals", MAX_DECIMALS)
    price_decimals = CENT_DECIMALS if decimals is None else decimals
    return Instrument(
        symbol=symbol,
        name=name,
        type="ETF" if kind == "ETF" else "STOCK",
        base_price=_price(row["price"], price_decimals),
        market_cap=_whole(row, "market_cap", LARGEST_WHOLE),
        price_decimals=price_decimals,
        made_up_price=row.get("price_source", "") == "made-up",
    )


def _symbol(text: str) -> str:
    try:
        return read_symbol(normalize_symbol(text))
    except BadRecord as bad:
        raise ValueError(f"{bad}: {text!r}") from None


def _price(text: str, decimals: int) -> float:
    """Read a price and round it to the instrument's tick, as all published prices are."""
    with suppress(ValueError):
        price = float(text)
        if is_price(price, decimals):
            return round(price, decimals)
    raise ValueError(f"not a price: {text!r} with {decimals} decimals")


def _whole(row: dict[str, str], column: str, most: int) -> int | None:
    text = row.get(column, "")
    if not text.strip():
        return None
    with suppress(ValueError):
        number = int(text)
        if 0 <= number <= most:
            return number
    raise ValueError(f"{column} is not a whole number from 0 to {most}: {text!r}")
