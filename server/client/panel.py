"""The panel of the chosen symbol: a line of figures above its chart."""

from collections.abc import Sequence
from typing import NamedTuple

from server.client.chart import draw_chart
from server.client.columns import Cell, Row, rise_style
from server.client.figures import (
    clean,
    percent_text,
    price_text,
    side_text,
    volume_text,
)
from server.client.layout import Line
from server.client.seen import Point

LEAST_ROWS = 6
"""Rows of the smallest panel worth drawing."""


class Span(NamedTuple):
    """A length of time that the chart can show, and the bars that it is made of.

    `timeframe` is empty for the prices that this client has seen.
    """

    title: str
    timeframe: str
    seconds: float


SPANS = (
    Span("live", "", 3600.0),
    Span("a day in 5 m bars", "5m", 86_400.0),
    Span("a week in 1 h bars", "1h", 7 * 86_400.0),
    Span("a year in 1 d bars", "1d", 365 * 86_400.0),
)


def panel(
    row: Row, span: Span, points: Sequence[Point], size: tuple[int, int], note: str
) -> list[Line]:
    """Return a panel's lines. `size`: its columns and rows. `note`: shown in place of a chart."""
    width, height = size
    lines = [_figures(row, span, width)]
    chart = draw_chart(points, width - 2, height - 1)
    if chart is None:
        lines += [Line([]), Line([Cell(f"  {note}", "dim")])][: height - 1]
        return lines + [Line([])] * (height - len(lines))
    style = rise_style(points[-1][1] - points[0][1])
    for plot, price in zip(chart.plot, chart.prices, strict=True):
        lines.append(Line([Cell(" "), Cell(plot, style), Cell(price, "dim")]))
    lines += [Line([Cell(f" {chart.axis}", "dim")]), Line([Cell(f" {chart.times}", "dim")])]
    return lines


def _figures(row: Row, span: Span, width: int) -> Line:
    quote = row.quote
    style = rise_style(quote.get("change"))
    price = price_text(quote.get("current_price"))
    percent = percent_text(quote)
    change_text = price_text(quote.get("change"), sign="+")
    parts = [
        Cell(f" {clean(row.symbol)}", "bold"),
        Cell(f"  {price}", f"bold {style}"),
        Cell(f"  {change_text} ({percent} %)" if percent else "", style),
        Cell(f"  {span.title}", "cyan"),
        Cell(f"  {clean(quote.get('name') or '')}"),
    ]
    for label, text in (
        ("bid", side_text(quote, "bid")),
        ("ask", side_text(quote, "ask")),
        ("low", price_text(quote.get("low"))),
        ("high", price_text(quote.get("high"))),
        ("volume", volume_text(quote)),
    ):
        used = sum(len(part.text) for part in parts)
        if text and used + len(label) + len(text) + 3 <= width:
            parts += [Cell(f"  {label} ", "dim"), Cell(text)]
    return Line(parts)
