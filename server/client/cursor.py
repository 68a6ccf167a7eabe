"""The part of a long table that is seen, the chosen row, and the order of the rows."""

from collections.abc import Callable, Sequence

from server.client.columns import NAME, SYMBOL, Column, Row
from server.client.keys import Key


class Cursor:
    """The chosen symbol and the first row that is seen.

    A step moves both while there are rows beyond the edge, so the choice keeps its place on the screen.
    The choice is a symbol, not a place: rows that are sorted anew do not change it.
    """

    def __init__(self) -> None:
        self.first = 0
        self._chosen = ""
        self._rows = 1
        self._symbols: list[str] = []

    @property
    def chosen(self) -> str:
        """Return the chosen symbol, by default the first; empty without any."""
        if self._chosen in self._symbols:
            return self._chosen
        return self._symbols[0] if self._symbols else ""

    def choose(self, symbol: str) -> None:
        """Choose a symbol, and show it once there is a row of it."""
        self._chosen = symbol

    def move(self, key: Key) -> None:
        """Move by a row, by a page, or to an end."""
        count = len(self._symbols)
        steps = {
            Key.UP: -1,
            Key.DOWN: 1,
            Key.PAGE_UP: -self._rows,
            Key.PAGE_DOWN: self._rows,
            Key.HOME: -count,
            Key.END: count,
        }
        if key not in steps or not count:
            return
        place = self._symbols.index(self.chosen)
        self._chosen = self._symbols[max(0, min(place + steps[key], count - 1))]
        self.first = self._within(self.first + steps[key])

    def leave(self) -> None:
        """Choose the next row, or the last one, as the chosen one goes away."""
        place = self._symbols.index(self.chosen) if self._symbols else 0
        rest = [each for each in self._symbols if each != self.chosen]
        self._chosen = rest[min(place, len(rest) - 1)] if rest else ""

    def window(self, symbols: Sequence[str], rows: int) -> list[str]:
        """Return those of `symbols` that are seen in `rows` rows, the chosen one among them."""
        self._symbols, self._rows = [*symbols], rows
        self.first = self._within(self.first)
        if self._chosen in self._symbols:
            place = self._symbols.index(self._chosen)
            self.first = self._within(min(place, max(self.first, place - rows + 1)))
        return self._symbols[self.first : self.first + rows]

    def _within(self, first: int) -> int:
        return max(0, min(first, len(self._symbols) - self._rows))


class Sorting:
    """The column by which rows are sorted, and the direction. Rows without a value come last.

    `by` is None for the order in which the symbols come.
    """

    def __init__(self) -> None:
        self.by: Column | None = None
        self.reversed = False

    def step(self, columns: Sequence[Column], step: int) -> None:
        """Sort by the next of `columns`, or the one before. Numbers begin with the largest."""
        if not columns:
            return
        current = self.by or SYMBOL
        place = columns.index(current) if current in columns else 0
        self.by = columns[(place + step) % len(columns)]
        self.reversed = self.by not in (SYMBOL, NAME)

    def reverse(self) -> None:
        """Sort the other way round."""
        self.by = self.by or SYMBOL
        self.reversed = not self.reversed

    def sorted(self, symbols: Sequence[str], row: Callable[[str], Row]) -> list[str]:
        """Return `symbols` in their order. Equal ones keep the order in which they came."""
        if self.by is None:
            return [*symbols]
        keys = {symbol: self.by.key(row(symbol)) for symbol in symbols}
        known = [symbol for symbol in symbols if keys[symbol] not in (None, "")]
        unknown = [symbol for symbol in symbols if keys[symbol] in (None, "")]
        return sorted(known, key=keys.__getitem__, reverse=self.reversed) + unknown
