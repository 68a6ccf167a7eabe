"""Reads instruments from a file, with the columns, separators and encodings of real files."""

import csv
import io
import re
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from server.quotes.instrument import (
    FIRST_SEEN_DECIMALS,
    LARGEST_WHOLE,
    MAX_DECIMALS,
    SIGNED_TYPES,
    Instrument,
)
from server.store.cells import (
    SHOWN,
    has_decimal_comma,
    has_decimal_point,
    is_missing,
    plain_cell,
    read_currency,
    read_exchange,
    read_isin,
    read_kind,
    read_name,
    read_price,
    read_symbol_cell,
    read_whole,
)

if TYPE_CHECKING:  # the type has no name outside of typeshed
    from _csv import Reader

SEPARATORS = ",;\t|"

_LINE_END = re.compile(r"\r\n|\r|\n")

_HEADERS = {
    "symbol": "symbol ticker tickersymbol actsymbol code",
    "name": "name securityname companyname company security description",
    "price": "price lastsale lastprice last lastquote close closeprice previousclose baseprice",
    "type": "type assettype securitytype instrumenttype assetclass category etf",
    "market_cap": "marketcap marketcapitalization mktcap capitalization",
    "price_decimals": "pricedecimals priceprecision",
    "size_decimals": "sizedecimals sizeprecision quantitydecimals quantityprecision",
    "currency": "currency currencycode ccy tradingcurrency quotecurrency",
    "exchange": "exchange mic exchangecode exchangename primaryexchange listingexchange",
    "isin": "isin isincode",
    "previous_close": "previousclose prevclose priorclose",
    "price_source": "pricesource",
}

HEADERS = {field: tuple(names.split()) for field, names in _HEADERS.items()}
"""The fields of an instrument, and the headers under which files have them, as `_plain` writes them."""

NUMBERS = ("price", "previous_close", "market_cap")
"""The fields that show whether a file has decimal commas."""

REQUIRED = ("symbol", "name")

PREAMBLE = 20
"""Lines before the header, at most: titles, comments, and the `sep=;` of a spreadsheet."""

MAX_COLUMNS = 1000
"""Columns of a file, at most: exports of exchanges have some ten, and a million take seconds."""

TRAILER = "file creation time"
"""Begins the last line of Nasdaq Trader's symbol directories."""


class BadFile(Exception):
    """The file cannot be imported; the message is one line that names the place."""


class Problem(NamedTuple):
    """A row that is not an instrument."""

    line: int
    problem: str


class Contents(NamedTuple):
    """The contents of a file. `assumed` says how the file was read, if that was not obvious."""

    instruments: list[Instrument]
    problems: list[Problem]
    assumed: list[str]


class _Table(NamedTuple):
    """The rows of a file by line, as cells by field."""

    rows: list[tuple[int, dict[str, str]]]
    problems: list[Problem]
    assumed: list[str]


def read_instruments(path: Path, columns: Mapping[str, str] | None = None) -> Contents:
    """Return the instruments of a file with a header line, and the rows that are not instruments.

    Columns, by these names or the common ones of HEADERS in any case: `symbol`, `name`. Not required
    are `price` (`change` is counted from it), `type` (by default STOCK), `currency` (by default USD),
    `exchange`, `isin`, `market_cap`, `price_decimals`, `size_decimals`, `previous_close`, and
    `price_source`, where `made-up` says that the price is invented. Others are ignored. An instrument
    without a price waits for its first one.

    Arguments:
        columns: the header of the column to take for a field, where its name does not tell.

    Errors: BadFile.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadFile(f"cannot read {path}: {error.strerror}") from None
    return parse_instruments(str(path), data, columns)


def parse_instruments(
    path: str, data: bytes, columns: Mapping[str, str] | None = None, most_rows: int = sys.maxsize
) -> Contents:
    """Return as `read_instruments` does, of the bytes of a file. `path` names it.

    Arguments:
        most_rows: a larger file is an error. A short bad row takes a hundred times its size in memory.

    Errors: BadFile.
    """
    text, encoding = _decode(path, data)
    table = _read_table(path, text, columns or {}, most_rows)
    if encoding:
        table.assumed.insert(0, f"the encoding is {encoding}")
    try:
        return _instruments(table)
    except BadFile as error:
        raise BadFile(f"{path}: {error}") from None


def _instruments(table: _Table) -> Contents:
    numbers = [cells.get(field, "") for _, cells in table.rows for field in NUMBERS]
    comma = has_decimal_comma(numbers)
    if comma and has_decimal_point(numbers):
        raise BadFile("some numbers have a decimal comma and others a decimal point")
    if comma:
        table.assumed.append("numbers have a decimal comma")
    found: dict[str, Instrument] = {}
    lines: dict[str, int] = {}
    for line, cells in table.rows:
        try:
            instrument = _instrument(cells, decimal_comma=comma)
        except ValueError as error:
            table.problems.append(Problem(line, str(error)))
            continue
        symbol = instrument.symbol
        if symbol in found:
            again = f"{symbol} for a second time, after line {lines[symbol]}"
            table.problems.append(Problem(line, again))
        else:
            found[symbol], lines[symbol] = instrument, line
    return Contents(list(found.values()), sorted(table.problems), table.assumed)


def _instrument(cells: Mapping[str, str], *, decimal_comma: bool) -> Instrument:
    """Errors: ValueError."""
    symbol, name = read_symbol_cell(cells["symbol"]), read_name(cells["name"])
    kind = read_kind(cells.get("type", ""))
    read = partial(read_price, decimal_comma=decimal_comma, signed=kind in SIGNED_TYPES)
    decimals = _decimals("price_decimals", cells)
    price: float | None = None
    # A price that is not a number is a calculation gone wrong, and not a missing one.
    if is_missing(text := cells.get("price", "")) and text.strip().lower() != "nan":
        decimals = FIRST_SEEN_DECIMALS if decimals is None else decimals
    else:
        price, decimals = read(text, decimals)
    close = cells.get("previous_close", "")
    market_cap = read_whole(
        "market_cap", cells.get("market_cap", ""), LARGEST_WHOLE, decimal_comma=decimal_comma
    )
    return Instrument(
        symbol=symbol,
        name=name,
        type=kind,
        base_price=price,
        market_cap=market_cap,
        price_decimals=decimals,
        made_up_price=cells.get("price_source", "").strip() == "made-up",
        currency=read_currency(cells.get("currency", "")),
        exchange=read_exchange(cells.get("exchange", "")),
        isin=read_isin(cells.get("isin", "")),
        size_decimals=_decimals("size_decimals", cells) or 0,
        previous_close=None if is_missing(close) else read(close, decimals)[0],
    )


def _decimals(field: str, cells: Mapping[str, str]) -> int | None:
    """Errors: ValueError."""
    return read_whole(field, cells.get(field, ""), MAX_DECIMALS)


def _decode(path: str, data: bytes) -> tuple[str, str]:
    """Return a file's text, and its encoding if that is not UTF-8. Errors: BadFile."""
    encodings = ["utf-16"] if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ["utf-8-sig", "cp1252"]
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        return text, "" if encoding == "utf-8-sig" else encoding
    raise BadFile(f"cannot read {path}: it is neither UTF-8 nor Windows-1252")


def _read_table(path: str, text: str, columns: Mapping[str, str], most_rows: int) -> _Table:
    """Errors: BadFile."""
    before, header = _header(text, _plain(columns.get("symbol", "")))
    separator = max(SEPARATORS, key=header.count)
    if header.count(separator) >= MAX_COLUMNS:
        raise BadFile(f"cannot read {path}: its header has more than {MAX_COLUMNS} columns")
    table = _Table([], [], [])
    # A symbol may begin with the mark, so only a file that shows its meaning has comments.
    comment = "#" if before.lstrip().startswith("#") else ""
    if before.strip():
        table.assumed.append(f"the header is {header.strip()[:SHOWN]!r}")
        table.assumed.extend(["lines that begin with # are comments"] if comment else [])
    # The lines keep their numbers.
    text = "\n" * len(_LINE_END.findall(before)) + text[len(before) :]
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    if separator != ",":
        table.assumed.append(f"columns are separated by {separator!r}")
    try:
        lines = _rows(rows, comment)
        _, names = next(lines, (0, []))
        fields = _fields(path, names, columns)
        table.assumed.extend(
            f"{field} is the column {names[column].strip()!r}"
            for field, column in fields.items()
            if names[column].strip().lower() != field
        )
        if "price" not in fields:
            table.assumed.append("no column has prices; --map price=HEADER names one")
        for line, cells in lines:
            if len(table.rows) + len(table.problems) == most_rows:
                raise BadFile(f"{path} has more than {most_rows} rows")
            if cells[0].lower().startswith(TRAILER):
                table.assumed.append(f"line {line} is the end of the file")
                break
            if len(cells) != len(names) and any(map(str.strip, cells[len(names) :] or ["short"])):
                problem = f"{len(cells)} fields, another number of fields than the header's"
                table.problems.append(Problem(line, f"{problem} {len(names)}"))
            else:
                row = {field: plain_cell(cells[column]) for field, column in fields.items()}
                table.rows.append((line, row))
    except csv.Error as error:
        raise BadFile(f"cannot read {path} line {rows.line_num}: {error}") from None
    return table


def _header(text: str, symbol: str) -> tuple[str, str]:
    """Return the text before the header, and the header: the first line with a column of symbols, or
    the first line that is not blank.
    """
    first: tuple[str, str] | None = None
    begin, number = 0, 0
    wanted = {symbol} if symbol else set(HEADERS["symbol"])
    while begin < len(text) and number < PREAMBLE:
        match = _LINE_END.search(text, begin)
        line = text[begin : match.start() if match else None]
        if line.strip():
            number += 1
            first = first or (text[:begin], line)
            names = line.translate(dict.fromkeys(map(ord, SEPARATORS), "\n")).split("\n")
            if len(names) > 1 and any(_plain(name) in wanted for name in names):
                return text[:begin], line
        begin = match.end() if match else len(text)
    return first or ("", "")


def _rows(rows: "Reader", comment: str) -> Iterator[tuple[int, list[str]]]:
    """The rows that hold anything, with the lines at which they end. `comment` begins a comment; '' if
    there are none.
    """
    for row in rows:
        if any(cell.strip() for cell in row) and not (comment and row[0].startswith(comment)):
            yield rows.line_num, row


def _fields(path: str, names: list[str], columns: Mapping[str, str]) -> dict[str, int]:
    """Return the column of each field that there is. Errors: BadFile."""
    plain = [_plain(name) for name in names]
    found: dict[str, int] = {}
    for field, known in HEADERS.items():
        wanted = (_plain(columns[field]),) if field in columns else known
        column = next((plain.index(name) for name in wanted if name in plain), None)
        if column is not None:
            found[field] = column
        elif field in columns:
            raise BadFile(f"{path}: the header has no column {columns[field]!r}")
    # A file may lack prices only. But if the names of columns are at fault, that of the price is, too.
    missing = [field for field in (*REQUIRED, "price") if field not in found]
    if any(field in REQUIRED for field in missing):
        raise BadFile(
            f"{path}: the header has no column {', '.join(missing)}, but {', '.join(names)[:200]!r}; "
            f"--map {missing[0]}=HEADER names one"
        )
    return found


def _plain(name: str) -> str:
    """A header without case, spaces and punctuation."""
    return "".join(each for each in name.casefold() if each.isalnum())
