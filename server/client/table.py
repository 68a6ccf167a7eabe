"""The screen of `quotestream watch`: a live table, the chart of the chosen symbol, and the state."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import trio
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment

from server.client.columns import (
    COLUMNS,
    NAME,
    SYMBOL,
    UPDATES,
    Cell,
    Column,
    Row,
    field_columns,
    fitting,
)
from server.client.connection import Connection
from server.client.cursor import Cursor, Sorting
from server.client.document import Document
from server.client.layout import Line, chosen, row_line, words_line, words_width
from server.client.market import Market
from server.client.panel import LEAST_ROWS, SPANS, Span, panel
from server.client.seen import Point

FRAME_LINES = 4
"""Lines of the table that are not rows: the header, a rule, the keys, the state."""

LOW = 8
"""Lines of a terminal below which the rule and the keys are left out."""

KEYS = (
    "↑↓ choose",
    "a add",
    "d remove",
    "c chart",
    "s r sort",
    "p pause",
    "q quit",
    "? all keys",
)

HELP = (
    ("↑ ↓  j k", "choose a symbol"),
    ("PgUp PgDn Home End", "scroll"),
    ("a", "add symbols: type them with commas, then Enter"),
    ("d  Delete", "remove the chosen symbol"),
    ("s S  → ←", "sort by the next column, or the one before"),
    ("r", "reverse the order"),
    ("c  Enter", "chart of the chosen symbol on the whole screen"),
    ("t", "span of the chart"),
    ("p", "pause: the table stands still, nothing is missed"),
    ("? h", "these keys"),
    ("q  Ctrl-C", "quit"),
)


class Frame(NamedTuple):
    """The lines of the screen, and those of them that are rows of the table."""

    lines: list[Line]
    rows: list[Line]


class Screen:
    """Everything that the terminal shows. `changed` is set when there is something to draw.

    Arguments:
        fields: those that the user asked for. They get columns if they have none.
        clock: returns seconds since 1970. Without one, ages, latency and charts are not shown.
        top: show the busiest symbols, this number of them; 0 for all symbols.
        has_keys: the user can press keys, so one row is the chosen one.
    """

    def __init__(
        self,
        fields: Sequence[str] = (),
        *,
        clock: Callable[[], float] | None = None,
        top: int = 0,
        has_keys: bool = False,
    ) -> None:
        self.changed = trio.Event()
        self.market = Market(top)
        self.cursor = Cursor()
        self.sorting = Sorting()
        self.connection = Connection()
        self.visible: list[str] = []
        self.typed: str | None = None
        self.is_charted = False
        self.is_helping = False
        self.span = SPANS[0]
        self.bars: dict[tuple[str, Span], list[Point]] = {}
        self.columns: list[Column] = []
        self._clock = clock
        self._has_keys = has_keys
        self._wanted = field_columns(fields)
        self._all = [
            *(each for each in COLUMNS if each is not UPDATES or top),
            *self._wanted,
        ]
        self._widths: dict[Column, int] = {}
        self._size = (0, 0)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        for line in self.draw(width, console.height).lines:
            yield from line.segments(width)
            yield Segment.line()

    @property
    def now(self) -> float:
        """Return the clock's time; 0 without a clock."""
        return self._clock() if self._clock else 0.0

    def update(self, document: Document, message: dict[str, Any]) -> None:
        """Take in one message."""
        now = self.now
        self.connection.take(message, now)
        self.market.take(document, message, now)
        self.changed.set()

    def restart(self, state: str = "connecting") -> None:
        """Begin anew in `state`, as the user chose other symbols."""
        self.connection.restart(state)
        self.market.restart()

    def draw(self, width: int, height: int) -> Frame:
        """Return the lines for a terminal of this size."""
        now = self._clock() if self._clock else None
        if self._size != (width, height):
            self._size = (width, height)
            self._widths.clear()
        state_lines = 1 if height < LOW else 2
        symbols = self.market.symbols(self.now)
        symbols = self.sorting.sorted(symbols, lambda symbol: self.market.row(symbol, now))
        room = max(1, height - FRAME_LINES if height >= LOW else height - 2)
        seen = self.cursor.window(symbols, room)
        self.visible = seen
        rows: list[Line] = []
        if self.is_helping:
            lines = _help_lines(height - state_lines)
        elif self.is_charted and seen:
            lines = self._panel(now, width, height - state_lines)
        else:
            lines, rows = self._table(seen, now, width, height)
            free = height - state_lines - len(lines)
            if now is not None and seen and free > LEAST_ROWS:
                lines = [*lines, Line([]), *self._panel(now, width, free - 1)]
        lines = lines[: max(0, height - state_lines)]
        lines += [Line([])] * (height - state_lines - len(lines))
        if height >= LOW:
            lines.append(self._keys_line(width))
        lines.append(self._state_line(seen, symbols, now, width))
        return Frame(lines, rows)

    def _table(
        self, seen: Sequence[str], now: float | None, width: int, height: int
    ) -> tuple[list[Line], list[Line]]:
        """Return the lines of the table, and those of them that are rows."""
        market = [self.market.row(symbol, now) for symbol in seen]
        cells = self._cells(market)
        columns, name = fitting(self._widths, self._wanted, width, clock=now is not None)
        self.columns = [SYMBOL, *(each for each in columns if each is not SYMBOL)]
        widths = [self._widths[column] for column in columns]
        if name and columns:
            columns, widths = [*columns, NAME], [*widths, name]
            cells[NAME] = [NAME.cell(row) for row in market]
        if len(columns) == 1:
            widths[0] = min(widths[0], max(1, width - 1))
        headings = [Cell(self._heading(column), "bold") for column in columns]
        lines = [row_line(headings, columns, widths, None)] if columns else [Line([])]
        if height >= LOW:
            lines.append(Line([Cell("─" * width, "dim")]))
        rows: list[Line] = []
        for number, symbol in enumerate(seen):
            texts = [cells[each][number] for each in columns]
            row = row_line(texts, columns, widths, self._style(symbol))
            rows.append(chosen(row) if self._has_keys and symbol == self.cursor.chosen else row)
        return [*lines, *rows], rows

    def _cells(self, rows: Sequence[Row]) -> dict[Column, list[Cell]]:
        """Return the cells of the columns with a value, and widen the columns for them: they never
        become narrower until the terminal's size changes, so that figures stay in place.
        """
        cells: dict[Column, list[Cell]] = {}
        for column in self._all:
            made = [column.cell(row) for row in rows]
            if column in self._widths or any(cell.text for cell in made):
                cells[column] = made
                width = max(column.width(made), len(self._heading(column)))
                self._widths[column] = max(self._widths.get(column, 0), width)
        if not rows:
            # Before the first quote nobody knows which columns will have a value.
            return {}
        # In the order of the table, as a column may get its first value later than others.
        self._widths = {each: self._widths[each] for each in self._all if each in self._widths}
        return cells

    def _heading(self, column: Column) -> str:
        if column is self.sorting.by:
            return f"{column.heading}{'▼' if self.sorting.reversed else '▲'}"
        return column.heading

    def _style(self, symbol: str) -> str | None:
        is_old = self._clock is not None and not self.connection.is_live
        return "dim" if is_old or self.market.is_quiet(symbol) else None

    def _panel(self, now: float | None, width: int, height: int) -> list[Line]:
        symbol = self.cursor.chosen
        row = self.market.row(symbol, now)
        if self.span.timeframe:
            points = self.bars.get((symbol, self.span))
            note = "loading" if points is None else "no bars of this span"
        else:
            points, note = self.market.points(symbol, self.now), "waiting for a second price"
        return panel(row, self.span, points or [], (width, height), note)

    def _keys_line(self, width: int) -> Line:
        if self.typed is not None:
            text = f" add symbol: {self.typed}▏"
            return Line([Cell(text, "bold"), Cell("  Enter adds, Esc leaves", "dim")])
        if not self._has_keys:
            return Line([Cell(" Ctrl-C quits" if self._clock else "", "dim")])
        # A narrow terminal names the keys that lead to the others.
        words: Sequence[str] = KEYS if words_width(KEYS) <= width else KEYS[-2:] + KEYS[:-2]
        if self.is_helping:
            words = ("Esc back", "q quit")
        elif self.is_charted:
            words = ("Esc back", "↑↓ choose", "t span", "p pause", "q quit")
        return words_line([(word, "dim") for word in words], width)

    def _state_line(
        self, seen: Sequence[str], symbols: Sequence[str], now: float | None, width: int
    ) -> Line:
        """Return the line of the state, which is in sight at any width."""
        state, *others = self.connection.words(now)
        words = [state, *others]
        if self.market.is_paused:
            words.insert(1, ("❚❚ paused", "bold yellow"))
        if len(seen) < len(symbols) and not self.is_charted and not self.is_helping:
            first = self.cursor.first
            place = f"{first + 1}-{first + len(seen)} of {len(symbols)}"
            if words_width([place, state[0]]) <= width:
                words.insert(0, (place, ""))
        return words_line(words, width)


def _help_lines(height: int) -> list[Line]:
    lines = [Line([Cell(" keys", "bold")]), Line([])]
    for keys, meaning in HELP:
        lines.append(Line([Cell(f"  {keys:<20}", "bold"), Cell(meaning)]))
    return lines[:height] if height >= len(lines) else lines[2:][:height]
