"""The interface to the tables of bars, and the SQL that Postgres and SQLite share."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

from server.history.bar import MinuteBar, exact
from server.quotes.traded import MINUTE_US

Key = tuple[str, int]
"""A symbol and a minute."""

COLUMNS = (
    *("minute", "open", "high", "low", "close", "volume", "count", "turnover"),
    *("first_us", "last_us", "revision"),
)
"""The columns of a bar behind its instrument, in the order in which `rows_of` gives them."""

ON_CONFLICT = f"""
ON CONFLICT (instrument, minute) DO UPDATE
SET {", ".join(f"{each} = excluded.{each}" for each in COLUMNS[1:])}
WHERE excluded.revision > minute_bars.revision
    OR excluded.revision = minute_bars.revision
    AND (excluded.revision = -1 OR excluded.count > minute_bars.count)
"""
"""The end of an INSERT. A final bar is replaced only by a later revision, or by one of more trades: an
instance that was frozen ends a minute without the trades that the next leader got. An open bar is
replaced by any.
"""


MINUTES = f"""
    minute, minute_bars.open, minute_bars.high, minute_bars.low, close, minute_bars.volume, count,
    turnover, CAST(minute AS bigint) * {MINUTE_US} + first_us,
    CAST(minute AS bigint) * {MINUTE_US} + last_us,
    revision >= 0, CASE WHEN revision > 0 THEN revision ELSE 0 END
"""
"""The fields of one minute. The catalogue has some columns of the same name."""

TOTALS = """
    min(minute) AS any_minute,
    min(minute) FILTER (WHERE count > 0) AS first_minute,
    max(minute) FILTER (WHERE count > 0) AS last_minute,
    max(high) FILTER (WHERE count > 0) AS high, min(low) FILTER (WHERE count > 0) AS low,
    sum(volume) AS volume, sum(count) AS count, sum(turnover) AS turnover,
    min(revision) >= 0 AS final, sum(CASE WHEN revision > 0 THEN revision ELSE 0 END) AS revision
"""
"""The fields of several minutes that need no order. A minute may have only cancelled trades. If all
have, some fields are NULL.
"""

FIRST_MINUTE, LAST_MINUTE = (
    "coalesce(first_minute, any_minute)",
    "coalesce(last_minute, any_minute)",
)
"""The minutes with the first and the last trade. If all were cancelled, it is any minute."""

SLOTS = f"""
    slot, opened.open, coalesce(totals.high, opened.high), coalesce(totals.low, opened.low),
    closed.close, totals.volume, totals.count, totals.turnover,
    CAST(opened.minute AS bigint) * {MINUTE_US} + opened.first_us,
    CAST(closed.minute AS bigint) * {MINUTE_US} + closed.last_us, totals.final, totals.revision
"""
"""The fields of several minutes: of `totals`, and of the first and the last of the minutes."""


class Wanted(NamedTuple):
    """The bars to read: of one symbol, from the minute `first` to before the minute `end`.

    `limit` counts bars, the first ones by time, or the last ones if `descending`. Bars of several
    minutes have at most `size` minutes, counted from the minutes `starts`, which are in order. A bar
    ends where the next start is. A `size` of 1 means the minutes as they are. Minutes in `without`
    are left out.
    """

    symbol: str
    first: int
    end: int
    limit: int
    descending: bool = False
    starts: Sequence[int] = ()
    size: int = 1
    without: Sequence[int] = ()

    @property
    def parts(self) -> list[tuple[int, int]]:
        """Return the minutes from each of `starts` to before the next one, or to before `end`."""
        return [*pairwise([*self.starts, self.end])]

    @property
    def is_whole(self) -> bool:
        """Return whether each part is one bar."""
        return all(end - start <= self.size for start, end in self.parts)


class BarTables(Protocol):
    """The tables of bars in Postgres, SQLite or memory. Every method may raise StoreUnavailable."""

    async def write(self, bars: Sequence[MinuteBar]) -> list[str]:
        """Write bars, all or none, and return the symbols that the catalogue does not have.

        The bars of these symbols are not written. Writing a bar again changes nothing. An earlier
        revision does not replace a later one, nor one of fewer trades the same revision of more.
        Errors: RowsRefused.
        """

    async def read(self, wanted: Wanted) -> list[MinuteBar]:
        """Return bars in their order. A bar of several minutes has the minute in which it begins.

        It is final if all its minutes are, and its `rev` is the sum of theirs. One of minutes whose
        trades were all cancelled has a count of 0. A minute like that is left out.
        """

    async def find(self, keys: Sequence[Key]) -> list[MinuteBar]:
        """Return those of some bars that there are."""

    async def open_bars(self) -> list[MinuteBar]:
        """Return bars that are not final, among the last two of each instrument."""

    async def delete(self, before: int) -> int:
        """Delete some bars of minutes before `before`, and return their number, 0 at the end.

        Postgres deletes only whole months, and counts these.
        """

    async def tidy(self, now: int) -> None:
        """Prepare the table for the time after the minute `now`, and make old minutes quick to read."""


def rows_of(bars: Iterable[MinuteBar]) -> list[tuple[Any, ...]]:
    """Return each bar as its symbol and its COLUMNS."""
    return [
        (
            *(each.symbol, each.minute, each.open, each.high, each.low, each.close),
            *(float(each.volume), each.count, each.turnover),
            each.first_us - each.minute * MINUTE_US,
            each.last_us - each.minute * MINUTE_US,
            each.rev if each.final else -1,
        )
        for each in bars
    ]


def bars_of(rows: Iterable[Sequence[Any]]) -> list[MinuteBar]:
    """Return the bars of rows that have a symbol and the fields of MINUTES or SLOTS."""
    return [
        MinuteBar(*(*row[:6], exact(row[6]), *row[7:11], bool(row[11]), row[12])) for row in rows
    ]
