"""Schedules of moves: files of trades that a server under test replays.

The simulator moves a random part of the watched symbols. A schedule makes the load exact.
"""

import csv
from importlib.resources import files
from pathlib import Path
from time import time_ns

HEADER = "timestamp_ms,symbol,price,size"


MOST_MOVES = 20_000_000
"""Lines of a file: 600 MB. A longer run would rather fill the disk than measure a server."""


class ScheduleTooLong(Exception):
    """A load has too many moves to be written; the message is one line for the user."""


class Schedule:
    """Moves of `symbols` symbols, each `rate` times a second for `seconds`.

    The symbols move at the same moment if `together`, else one after the other.
    Errors: ScheduleTooLong.
    """

    def __init__(self, symbols: int, rate: float, seconds: float, *, together: bool) -> None:
        if (moves := symbols * rate * seconds) > MOST_MOVES:
            raise ScheduleTooLong(
                f"{symbols} symbols with {rate:g} moves a second each for {seconds:,.0f} s are "
                f"{moves:,.0f} moves, more than {MOST_MOVES:,}: shorten the run or lower the rate"
            )
        self._instruments = largest_instruments(symbols)
        self._rate = rate
        self._seconds = seconds
        self._together = together

    @property
    def symbols(self) -> list[str]:
        """Return the symbols that move."""
        return [symbol for symbol, _ in self._instruments]

    def write(self, path: Path) -> Path:
        """Write the file. Prices go up and down by cents, so that each trade changes the quote. The
        first two moves are the day's high and low, and all others are ordinary trades.

        The times begin now, as a live feed's do. A compact message has them relative to `ts`.
        """
        start_ms = time_ns() // 1_000_000
        interval = 1000 / self._rate
        apart = 0 if self._together else interval / len(self._instruments)
        with path.open("w") as lines:
            lines.write(HEADER + "\n")
            for move in range(1, int(self._seconds * self._rate) + 1):
                for place, (symbol, price) in enumerate(self._instruments):
                    at = start_ms + round(move * interval + place * apart)
                    lines.write(f"{at},{symbol},{price + cents(move) / 100:.2f},100\n")
        return path


def cents(move: int) -> int:
    """Return the cents above the base price to which a move takes the price."""
    return {1: 98, 2: 0}.get(move, 1 + move % 97)


def symbol_names(count: int) -> list[str]:
    """Return the symbols of a schedule with `count` symbols."""
    return [symbol for symbol, _ in largest_instruments(count)]


def largest_instruments(count: int) -> list[tuple[str, float]]:
    """Return symbol and base price in dollars of the companies with the largest market cap."""
    with files("server.store").joinpath("instruments.csv").open(encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if row["market_cap"]]
    rows.sort(key=lambda row: -int(row["market_cap"]))
    if count > len(rows):
        raise ValueError(f"at most {len(rows)} symbols")
    return [(row["symbol"], float(row["price"])) for row in rows[:count]]
