"""Lays out cells, texts and charts as lines of styled text for a terminal."""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style

from server.client.columns import GAP, Cell, Column

ELLIPSIS = "…"

MARK = "▸"
"""Stands before the chosen row."""


class Line(NamedTuple):
    """One line of the screen: texts with their styles, and a style for all of it."""

    parts: list[Cell]
    style: str | None = None

    def segments(self, width: int) -> list[Segment]:
        """Return the line as rich's segments, cut to `width`."""
        whole = style_of(self.style or "")
        segments: list[Segment] = []
        left = width
        for text, style in self.parts:
            fitted = shortened(text, left)
            if fitted:
                segments.append(Segment(fitted, whole + style_of(style)))
            left -= cell_len(fitted)
        return segments


@cache
def style_of(name: str) -> Style:
    """Return rich's style of a name."""
    return Style.parse(name) if name else Style.null()


def shortened(text: str, width: int) -> str:
    """Return `text`, or its beginning with an ellipsis, in at most `width` columns."""
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, width - 1) + ELLIPSIS if width > 0 else ""


def aligned(cell: Cell, column: Column, width: int) -> str:
    """Return a cell's text in exactly `width` columns."""
    text = shortened(cell.text, width)
    space = " " * (width - cell_len(text))
    return space + text if column.justify == "right" else text + space


def row_line(
    cells: Sequence[Cell], columns: Sequence[Column], widths: Sequence[int], style: str | None
) -> Line:
    """Return one row of the table. The first cell has room for a mark on its left."""
    parts: list[Cell] = []
    for cell, column, width in zip(cells, columns, widths, strict=True):
        parts.append(Cell(" " + aligned(cell, column, width) + " " * (GAP - 1), cell.style))
    return Line(parts, style)


def chosen(row: Line) -> Line:
    """Return a row with the marks of the chosen one: an arrow, and its symbol reversed. No colour has
    to tell it.
    """
    symbol = row.parts[0].text[1:]
    name = symbol.rstrip()
    rest = symbol[len(name) :]
    return Line([Cell(MARK), Cell(name, "bold reverse"), Cell(rest), *row.parts[1:]], row.style)


def words_width(words: Sequence[str]) -> int:
    """Return the columns that a line of `words` takes."""
    return 1 + sum(map(cell_len, words)) + GAP * (len(words) - 1)


def words_line(words: Sequence[tuple[str, str]], width: int) -> Line:
    """Return as many of `words`, which have their styles, as fit; the first one even if it is cut."""
    parts: list[Cell] = [Cell(" ")]
    used = 1
    for number, (text, style) in enumerate(words):
        space = " " * GAP if number else ""
        needed = cell_len(space + text)
        if number and used + needed > width:
            continue
        parts += [Cell(space), Cell(shortened(text, width - used), style)]
        used += needed
    return Line(parts)
