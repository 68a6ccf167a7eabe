"""A change of symbol in the catalogue, as Postgres and SQLite carry it out in one transaction.

The instrument's row gets the new symbol, as tables of other services may refer to the row. The old
symbol gets a delisted row that names the new one.
"""

from collections.abc import Iterator, Mapping
from time import time_ns
from typing import NamedTuple

from server.quotes.adjustment import ChangeRefused, begun_us, retired, succeeding
from server.quotes.snapshot import Snapshot
from server.quotes.traded import MINUTE_US

PARKED = "*"
"""The symbol of a row while two rows exchange theirs. No instrument has it."""

SET_SYMBOL = "UPDATE market_data SET symbol = $1 WHERE symbol = $2"

LIST_AGAIN = "UPDATE market_data SET delisted = false, renamed_to = NULL WHERE symbol = $1"

FORWARD = """
UPDATE market_data SET delisted = true, renamed_to = $1 WHERE symbol = $2 OR renamed_to = $2
"""
"""Also symbols that the instrument had before lead to the new one."""

EMPTY_BARS = "UPDATE minute_bars SET volume = 0, count = 0, turnover = 0 WHERE"
"""Leaves bars without a trade, as if all were cancelled. It lacks the condition."""


class Found(NamedTuple):
    """A symbol's row: the snapshot in it, None if it is not a record."""

    delisted: bool
    snapshot: Snapshot | None


def begun_minute(row: Snapshot) -> int:
    """Return the minute in which a row's instrument got its symbol, 0 for always."""
    return begun_us(row.adjustments) // MINUTE_US


def listed(symbol: str, rows: Mapping[str, Found]) -> Snapshot:
    """Return the symbol's snapshot. Errors: ChangeRefused."""
    row = rows.get(symbol)
    if row is None or row.delisted:
        raise ChangeRefused(f"{symbol} is not listed; nothing was changed")
    if row.snapshot is None:
        raise ChangeRefused(
            f"the row of {symbol} is not valid: import it first; nothing was changed"
        )
    return row.snapshot


def rows_after(old: str, new: str, rows: Mapping[str, Found]) -> list[Snapshot]:
    """Return the rows of the new and of the old symbol after the change. Errors: ChangeRefused."""
    state, former = listed(old, rows), rows.get(new)
    if former and not former.delisted:
        raise ChangeRefused(f"{new} is listed already: delist it first; nothing was renamed")
    now = time_ns() // 1000
    version = former.snapshot.version if former and former.snapshot else 1
    return [succeeding(state, new, version, now), retired(state, now)]


def symbol_changes(old: str, new: str, rows: Mapping[str, Found]) -> Iterator[tuple[str, str]]:
    """Return the arguments of SET_SYMBOL, call by call. If `new` has a row, both exchange symbols."""
    if new in rows:
        yield PARKED, new
    yield new, old
    if new in rows:
        yield old, PARKED
