"""Draws a line chart of prices in braille, with a price axis and a time axis."""

from bisect import bisect_right
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from server.client.figures import decimals_of
from server.client.seen import Point

DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""The bits of a braille cell (Unicode chapter 21), by row and column of its dots."""

BLANK = 0x2800

LABEL_ROWS = 4
"""Rows of the terminal between two prices of the axis."""

LABEL_COLUMNS = 16
"""Columns of the terminal between two times of the axis."""

DAY = 86_400.0

MOST_DECIMALS = 8


class Chart(NamedTuple):
    """The lines of a chart: those of the plot with their prices, the axis, and its times."""

    plot: list[str]
    prices: list[str]
    axis: str
    times: str


def draw_chart(points: Sequence[Point], width: int, height: int) -> Chart | None:
    """Return a chart of `points`, ordered by time, that fills `width` and `height`. Return None for
    fewer than two points, or without room.
    """
    if len(points) < 2 or points[-1][0] <= points[0][0]:
        return None
    low, high = _range([price for _, price in points])
    rows = height - 2
    if rows < 2:
        return None
    labels = _labels(low, high, rows)
    room = max(map(len, labels))
    columns = width - room - 2
    if columns < 4:
        return None
    plot = _plot(_sampled(points, columns * 2), low, high, rows)
    axis, times = _time_axis(points[0][0], points[-1][0], columns)
    ticks = ["┤" if label else "│" for label in labels]
    prices = [f"{tick} {label:>{room}}" for tick, label in zip(ticks, labels, strict=True)]
    return Chart(plot, prices, f"{axis}┘", times)


def _range(prices: Sequence[float]) -> Point:
    """Return the lowest and the highest price, apart even if all are the same."""
    low, high = min(prices), max(prices)
    if low == high:
        margin = abs(low) * 0.001 or 1.0
        return low - margin, high + margin
    return low, high


def _labels(low: float, high: float, rows: int) -> list[str]:
    """Return the price at every LABEL_ROWS-th row, from the top, and empty texts between."""
    step = (high - low) / (rows - 1)
    decimals = 2
    while decimals < MOST_DECIMALS and step * LABEL_ROWS < 10**-decimals:
        decimals += 1
    decimals = max(decimals, min(MOST_DECIMALS, decimals_of(round(high, decimals))))
    shown = [row for row in range(rows) if row % LABEL_ROWS == 0 and row < rows - 2] + [rows - 1]
    return [f"{high - step * row:,.{decimals}f}" if row in shown else "" for row in range(rows)]


def _sampled(points: Sequence[Point], parts: int) -> list[float]:
    """Return the last price of each of `parts` equal parts of the time."""
    times = [moment for moment, _ in points]
    step = (times[-1] - times[0]) / (parts - 1)
    at = (bisect_right(times, times[0] + step * part + 1e-9) - 1 for part in range(parts))
    return [points[max(0, index)][1] for index in at]


def _plot(prices: Sequence[float], low: float, high: float, rows: int) -> list[str]:
    """Return rows of braille: a dot for each price, joined by upright lines."""
    cells = [[BLANK] * (len(prices) // 2) for _ in range(rows)]
    before = None
    for x, price in enumerate(prices):
        # Not times a scale, which is infinite if the prices are nearly the same.
        y = round((high - price) / (high - low) * (rows * 4 - 1))
        first, last = (y, y) if before is None else (min(before, y), max(before, y))
        # The dot of the price before stands in the column before.
        first, last = (first + (before == first != y), last - (before == last != y))
        for dot in range(first, last + 1):
            cells[dot // 4][x // 2] |= DOTS[dot % 4][x % 2]
        before = y
    # A space is one byte, and looks like a cell without dots.
    return ["".join(map(chr, row)).replace(chr(BLANK), " ") for row in cells]


def _time_axis(start: float, end: float, columns: int) -> tuple[str, str]:
    """Return the axis with ticks, and the local times below them."""
    span = end - start
    shape = "%Y-%m-%d" if span > 20 * DAY else "%m-%d %H:%M" if span > DAY else "%H:%M:%S"
    axis, times = ["─"] * columns, [" "] * columns
    for column in range(0, columns, LABEL_COLUMNS):
        moment = start + span * column / max(1, columns - 1)
        text = datetime.fromtimestamp(moment).astimezone().strftime(shape)
        if column + len(text) > columns:
            break
        axis[column] = "┴"
        times[column : column + len(text)] = text
    return "".join(axis), "".join(times)
