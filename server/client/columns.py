"""The columns of the live table: heading, cell, sort key, and the choice of those that fit."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

from rich.cells import cell_len

from server.client.figures import (
    age_text,
    clean,
    percent_text,
    price_text,
    side_text,
    value_text,
    volume_text,
)
from server.client.seen import PricesSeen
from server.client.sparkline import sparkline

GAP = 2
"""Columns of the terminal between two of the table."""

NARROWEST_NAME = 8
"""Columns below which the name is left out."""

WIDEST_NAME = 40
"""Columns beyond which a name is cut, so that a wide terminal keeps rows readable."""

TREND = 12
"""Columns of a sparkline."""

FLASH = 0.7
"""Seconds for which a price that moved is bold."""

ARROWS = {1: "▲", -1: "▼"}
"""The last move, so that no colour has to tell it."""

STYLES = {1: "green", -1: "red"}


class Row(NamedTuple):
    """One symbol as the table knows it. `now` is in seconds since 1970, None without a clock."""

    symbol: str
    quote: Mapping[str, Any]
    version: int
    seen: PricesSeen
    updates: int
    now: float | None


class Cell(NamedTuple):
    """A text and rich's name of its style."""

    text: str
    style: str = ""


class Column(NamedTuple):
    """A column: its heading, the cell of a row, and the value that rows are sorted by.

    `least` is its width at least. Names get the width that other columns leave.
    """

    heading: str
    cell: Callable[[Row], Cell]
    key: Callable[[Row], Any]
    justify: Literal["left", "right"] = "right"
    least: int = 0

    def width(self, cells: Sequence[Cell]) -> int:
        """Return the widest of the heading and `cells`."""
        return max([self.least, len(self.heading), *(cell_len(cell.text) for cell in cells)])


def rise_style(rise: float | None) -> str:
    """Return the style of what rose or fell; empty for neither."""
    return STYLES[1 if rise > 0 else -1] if rise else ""


def _price(row: Row) -> Cell:
    text = price_text(row.quote.get("current_price"))
    arrow = ARROWS.get(row.seen.direction, "")
    if not text or not arrow:
        return Cell(text)
    flash = row.now is not None and row.now - row.seen.moved_at < FLASH
    style = STYLES[row.seen.direction]
    return Cell(f"{arrow} {text}", f"bold {style}" if flash else style)


def _change(text: str, row: Row) -> Cell:
    return Cell(text, rise_style(row.quote.get("change")))


def _trend(row: Row) -> Cell:
    prices = row.seen.sampled(TREND, row.now or 0.0)
    rise = prices[-1] - prices[0] if prices else None
    return Cell(sparkline(prices, TREND), rise_style(rise))


def age_of(row: Row) -> float | None:
    """Return the seconds since the time of a row's price; None if it is not known."""
    updated = row.quote.get("last_updated")
    if row.now is None or not updated:
        return None
    try:
        return max(0.0, row.now - datetime.fromisoformat(updated).timestamp())
    except ValueError:
        return None


def _age(row: Row) -> Cell:
    age = age_of(row)
    return Cell("" if age is None else age_text(age), "dim")


def _of(field: str) -> Callable[[Row], Any]:
    return lambda row: row.quote.get(field)


SYMBOL = Column("symbol", lambda row: Cell(clean(row.symbol)), lambda row: row.symbol, "left")
UPDATES = Column(
    "upd/min", lambda row: Cell(str(row.updates) if row.updates else ""), lambda row: row.updates
)

COLUMNS = (
    SYMBOL,
    Column("price", _price, _of("current_price")),
    Column("%", lambda row: _change(percent_text(row.quote), row), _of("change_percent")),
    Column("trend", _trend, lambda row: row.seen.rise, "left"),
    Column(
        "change",
        lambda row: _change(price_text(row.quote.get("change"), sign="+"), row),
        _of("change"),
    ),
    Column("bid", lambda row: Cell(side_text(row.quote, "bid")), _of("bid")),
    Column("ask", lambda row: Cell(side_text(row.quote, "ask")), _of("ask")),
    Column("volume", lambda row: Cell(volume_text(row.quote)), _of("volume")),
    Column("age", _age, age_of, least=4),
    UPDATES,
    Column(
        "updated",
        lambda row: Cell(clean((row.quote.get("last_updated") or "")[11:23])),
        _of("last_updated"),
    ),
    Column("version", lambda row: Cell(str(row.version)), lambda row: row.version),
)
"""In the order of the table. A column without a value is left out."""

NAME = Column("name", lambda row: Cell(clean(row.quote.get("name") or "")), _of("name"), "left")

PRIORITY = (
    ("symbol", "price", "%", "trend", "age", "change", "bid", "ask", "upd/min", "volume"),
    ("updated", "version"),
)
"""The headings that a narrow terminal keeps, in this order. Those of the second group come after the
name if there is a clock, as the age then says the same.
"""

PLACED = {"symbol", "current_price", "change_percent", "volume", "last_updated", "bid", "ask"}
"""Fields that have a place of their own in a line."""


def field_columns(fields: Sequence[str]) -> list[Column]:
    """Return a column for each of `fields`, which the user named, that has none of its own."""
    others = [each for each in dict.fromkeys(fields) if each not in PLACED | {"change", "name"}]
    return [_field_column(each) for each in others]


def _field_column(field: str) -> Column:
    return Column(field, lambda row: Cell(value_text(row.quote, field)), _of(field))


def fitting(
    widths: Mapping[Column, int], wanted: Sequence[Column], width: int, *, clock: bool
) -> tuple[list[Column], int]:
    """Return the columns of `widths` that fit `width`, in the order of the table, and the width for
    the name, 0 for none. `wanted` are the columns of fields that the user named.
    """
    first, last = ([each for each in widths if each.heading in group] for group in PRIORITY)
    order = [column for name in PRIORITY[0] for column in first if column.heading == name]
    order += [column for column in wanted if column in widths]
    if not clock:
        order += last
    chosen: list[Column] = []
    left = _take(order, widths, width, chosen)
    if not clock:
        return _in_order(widths, chosen), left - GAP if left - GAP >= NARROWEST_NAME else 0
    name = min(WIDEST_NAME, left - GAP)
    if name < NARROWEST_NAME:
        return _in_order(widths, chosen), 0
    spare = _take(last, widths, left - GAP - name, chosen)
    return _in_order(widths, chosen), min(WIDEST_NAME, name + spare)


def _take(
    order: Sequence[Column], widths: Mapping[Column, int], left: int, chosen: list[Column]
) -> int:
    """Add columns to `chosen` up to the first that does not fit, and return the width left."""
    for column in order:
        needed = GAP + widths[column]
        if needed > left and chosen:
            break
        left -= needed
        chosen.append(column)
    return left


def _in_order(widths: Mapping[Column, int], chosen: Sequence[Column]) -> list[Column]:
    return [column for column in widths if column in chosen]
