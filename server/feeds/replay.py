"""Replays recorded trades from a CSV file (`timestamp_ms,symbol,price,size`), at any speed.

The replay numbers the rows, and each trade carries its row's number. So the next leader of a cluster
plays the rows that a symbol lacks, in whatever order their times are.

A worker thread reads the file in blocks, so neither its size nor a slow disk matters.
"""

import csv
import gzip
import zlib
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from time import monotonic, time_ns
from typing import NamedTuple, Protocol, TextIO

import structlog
import trio

from server.feeds.pace import LONGEST_GAP, Pace
from server.feeds.timestamps import (
    COLUMNS,
    BadTimestamp,
    Unit,
    is_nonzero_number,
    parse_timestamp,
    plausible_unit,
)
from server.quotes.instrument import FIRST_SEEN_DECIMALS, is_price, normalize_symbol
from server.quotes.quote import NOWHERE, FeedPosition, Trade
from server.quotes.record import BadRecord, read_symbol

HEADER = ["timestamp_ms", "symbol", "price", "size"]
"""The first column may have any name in COLUMNS."""

BLOCK_ROWS = 1024
"""Rows read at a time: 2 ms of parsing, after which other tasks run."""

REPORT_INTERVAL = 1.0
"""Seconds between two log lines about bad rows."""

MAX_SIZE = 10**12
"""Shares in one trade: more than any company has issued."""

IDENTIFIED_CHARACTERS = 64 * 1024
"""Characters at the beginning of a file that identify it: some 2,000 rows."""

PriceDecimals = Callable[[str], int]
"""Returns a symbol's tick precision."""

log = structlog.get_logger()


class ReplayError(Exception):
    """The file cannot be replayed at all. The message gives the reason in one line."""


class BadRow(Exception):
    """One row that is not a trade."""


class Rows(Protocol):
    """A reader of the csv module."""

    @property
    def line_num(self) -> int:
        """Return the number of lines read so far."""

    def __iter__(self) -> "Rows": ...

    def __next__(self) -> list[str]: ...


class RawTrade(NamedTuple):
    """A recorded trade; `time_us` is in microseconds since the Unix epoch, `line` the file's line."""

    symbol: str
    price: float
    size: int
    time_us: int
    line: int


class Played(NamedTuple):
    """The rows that were played before, by this replay or by another instance's.

    `position`: where the lap begins. `newest`: returns a symbol's last row. `reached`: the last row
    of all symbols.
    """

    position: FeedPosition = NOWHERE
    newest: Callable[[str], int] = lambda _: 0
    reached: int = 0


class Block(NamedTuple):
    """The trades of some rows. `end` tells how the file ended behind them, None if it goes on."""

    trades: list[RawTrade]
    end: StopIteration | ReplayError | None = None


def as_first_seen(_: str) -> int:
    """Return the tick precision of symbols that no catalogue has."""
    return FIRST_SEEN_DECIMALS


class Replay:
    """One recorded file. `bad_rows` counts the rows skipped so far. `file` identifies the content."""

    def __init__(
        self, path: Path, speed: float, *, loop: bool, longest_gap: float = LONGEST_GAP
    ) -> None:
        """Check the file's header, and recognise the unit of its timestamps.

        Arguments:
            speed: how many times faster than recorded; 0 for as fast as the server takes trades.
            loop: the caller starts over at the end.
            longest_gap: recorded seconds between two rows; the replay does not wait for longer ones.

        Errors: ReplayError if there is no such file, if it does not start with HEADER, or if its first
        timestamp may be of any unit.
        """
        self.path = path
        self.speed = speed
        self.loop = loop
        self.longest_gap = longest_gap
        self.bad_rows = 0
        self._report_at = self._report_gap_at = 0.0
        with self._open() as lines:
            rows, declared = _rows(lines, path)
            self._unit = _recognise_unit(rows, declared, path)
        with self._open() as lines:
            self.file = zlib.crc32(_beginning(lines).encode())

    async def run(
        self,
        trades: trio.MemorySendChannel[Trade],
        price_decimals: PriceDecimals = as_first_seen,
        played: Played = Played(),  # noqa: B008 (a named tuple cannot change)
    ) -> int:
        """Send the file's trades that were not played before, and wait while the channel is full.

        Rows before the last one that was played are late, so they are sent without a pause.

        Arguments:
            price_decimals: called in a worker thread. A price that rounds to zero at its symbol's
                tick is a bad row.

        Returns the number of the next lap's first row. Errors: ReplayError if the file breaks off (a
        damaged archive), has become unreadable, or has no trade to repeat.
        """
        first_row, empty, end = played.position.row, True, None
        with self._open() as lines:
            rows, _ = _rows(lines, self.path)
            pace = Pace(self.speed, self.longest_gap, self._report_gap)
            while end is None:
                block, end = await trio.to_thread.run_sync(self._read_block, rows, price_decimals)
                empty = empty and not block
                for symbol, price, size, time_us, line in block:
                    row = first_row + line
                    if row > played.reached:
                        await pace.wait(time_us, line)
                    elif row <= played.newest(symbol):
                        continue
                    trade = Trade(symbol, price, size, time_us, time_ns() // 1000, row)
                    try:
                        trades.send_nowait(trade)
                    except trio.WouldBlock:
                        await trades.send(trade)
            next_row = first_row + rows.line_num + 1
        if isinstance(end, ReplayError):
            raise end
        if self.loop and empty:
            raise ReplayError(f"{self.path} holds no trade to repeat")
        return next_row

    def _open(self) -> TextIO:
        try:
            if self.path.suffix == ".gz":
                return gzip.open(
                    self.path, "rt", encoding="utf-8-sig", errors="replace", newline=""
                )
            return self.path.open(encoding="utf-8-sig", errors="replace", newline="")
        except OSError as error:
            raise ReplayError(f"cannot read {self.path}: {error.strerror or error}") from None

    def _read_block(self, rows: Rows, price_decimals: PriceDecimals) -> Block:
        """Read BLOCK_ROWS rows at most, and skip the bad ones."""
        trades: list[RawTrade] = []
        for _ in range(BLOCK_ROWS):
            try:
                row = next(rows)
                trades.append(parse_row(row, rows.line_num, self._unit, price_decimals))
            except StopIteration as end:
                return Block(trades, end)
            except (BadRow, csv.Error) as problem:
                self._report(rows.line_num, problem)
            except (OSError, EOFError, zlib.error) as error:
                return Block(trades, ReplayError(f"cannot read on in {self.path}: {error}"))
        return Block(trades)

    def _report(self, line: int, problem: Exception) -> None:
        self.bad_rows += 1
        if monotonic() >= self._report_at:
            self._report_at = monotonic() + REPORT_INTERVAL
            log.warning(
                "bad row skipped",
                file=str(self.path),
                line=line,
                problem=str(problem),
                bad_rows=self.bad_rows,
            )

    def _report_gap(self, line: int, seconds: float) -> None:
        if monotonic() >= self._report_gap_at:
            self._report_gap_at = monotonic() + REPORT_INTERVAL
            log.warning(
                "gap skipped",
                file=str(self.path),
                line=line,
                seconds=round(seconds, 3),
                longest=self.longest_gap,
            )


def parse_row(
    row: list[str], line: int, unit: Unit | None, price_decimals: PriceDecimals
) -> RawTrade:
    """Parse one row, in which timestamps that are numbers are in `unit`. Errors: BadRow."""
    if len(row) != len(HEADER):
        raise BadRow(f"{len(row)} fields instead of {len(HEADER)}")
    try:
        time_us, price, size = parse_timestamp(row[0], unit), float(row[2]), int(row[3])
    except (BadTimestamp, ValueError) as error:
        raise BadRow(str(error)) from None
    try:
        symbol = read_symbol(normalize_symbol(row[1]))
    except BadRecord as bad:
        raise BadRow(f"{bad}: {row[1]!r}") from None
    if '"' in symbol:
        raise BadRow(f"fields are written without quotes: {row[1]!r}")
    if not is_price(price, price_decimals(symbol)):
        raise BadRow(f"not a price: {row[2]!r}")
    if not 0 <= size <= MAX_SIZE:
        raise BadRow(f"not a size: {row[3]!r}")
    return RawTrade(symbol, price, size, time_us, line)


def _rows(lines: TextIO, path: Path) -> tuple[Rows, Unit | None]:
    """Check the header. Return the rows after it, and the unit that it gives.

    Quotation marks have no meaning: a single one must not join lines.
    """
    rows = csv.reader(lines, quoting=csv.QUOTE_NONE)
    try:
        header = next(rows, [])
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise ReplayError(f"cannot read {path}: {error}") from None
    if header[1:] != HEADER[1:] or header[0] not in COLUMNS:
        raise ReplayError(
            f"{path} must start with the line {','.join(HEADER)!r}, not {','.join(header)[:80]!r}"
            f" (the first column may be {', '.join(COLUMNS)})"
        )
    return rows, COLUMNS[header[0]]


def _recognise_unit(rows: Rows, declared: Unit | None, path: Path) -> Unit | None:
    """Return the unit of the file's numbers, by its first good row with a timestamp above zero.

    If the number is a time of our days in another unit than the declared one, the other one counts.
    Errors: ReplayError if no unit is declared and the number does not show it.
    """
    unit = declared
    # The replay reports a damaged archive when it comes to the damage.
    with suppress(OSError, EOFError, zlib.error, csv.Error):
        for row in islice(rows, BLOCK_ROWS):
            if not row or not is_nonzero_number(row[0]):
                continue
            with suppress(BadRow):
                parse_row(["0", *row[1:]], rows.line_num, declared or "ns", as_first_seen)
                unit = plausible_unit(row[0]) or declared
                if unit is None:
                    raise ReplayError(
                        f"{path} does not show the unit of its timestamps, such as {row[0]!r}:"
                        f" call their column {', '.join(filter(COLUMNS.get, COLUMNS))}"
                    )
                break
    if declared and unit != declared:
        log.warning("timestamps are in another unit", file=str(path), column=declared, unit=unit)
    return unit


def _beginning(lines: TextIO) -> str:
    try:
        return lines.read(IDENTIFIED_CHARACTERS)
    except (EOFError, OSError, zlib.error):
        return ""
