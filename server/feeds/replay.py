"""Replays recorded trades and books from a CSV file (`timestamp_ms,symbol,price,size`), at any speed.

The replay numbers the rows, and each trade carries its row's number. So the next leader of a cluster
plays the rows that a symbol lacks, in whatever order their times are.

A worker thread reads the file in blocks, so neither its size nor a slow disk matters.
"""

import csv
import gzip
import zlib
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
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
from server.quotes.instrument import MAX_DECIMALS, UNLISTED, Instrument, is_price, normalize_symbol
from server.quotes.record import BadRecord, read_symbol
from server.quotes.update import NOWHERE, FeedPosition, TopOfBook, Trade, Update, merged

HEADER = ["timestamp_ms", "symbol", "price", "size"]
"""The first column may have any name in COLUMNS."""

BOOK_COLUMNS = ["bid", "ask"]
"""Columns that may follow. If one cell is empty, nobody bids or asks; if both are, the book stays as it
was. A row without price and size has a book only.
"""

BLOCK_ROWS = 1024
"""Rows read at a time: 2 ms of parsing, after which other tasks run."""

REPORT_INTERVAL = 1.0
"""Seconds between two log lines about bad rows."""

LONGEST_TOLD = 3e9
"""Seconds, a century: with a slow REPLAY_SPEED a wait may end after the last date there is."""

MAX_SIZE = 10**12
"""Shares in one trade: more than any company has issued."""

IDENTIFIED_CHARACTERS = 64 * 1024
"""Characters at the beginning of a file that identify it: some 2,000 rows."""

_EVERYTHING = Instrument(
    symbol="ANY",
    name="ANY",
    type="OTHER",
    base_price=None,
    price_decimals=MAX_DECIMALS,
    size_decimals=MAX_DECIMALS,
)

Listed = Callable[[str], Instrument]
"""Returns a symbol's instrument, UNLISTED if it is not listed yet."""

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


class RawRow(NamedTuple):
    """A recorded trade, a recorded top of book, or both in one.

    `price` is None without a trade, `book` (bid and ask) without a book. `time_us` is in microseconds
    since the Unix epoch, `line` the file's line.
    """

    symbol: str
    price: float | None
    size: int | float
    book: tuple[float | None, float | None] | None
    time_us: int
    line: int

    def update(self, ts: int, row: int) -> Update:
        """Return the row as one update, so that it makes one version."""
        symbol, price, size, book, time_us, _ = self
        if book is None and price is not None:
            return Trade(symbol, price, size, time_us, ts, row=row)
        bid, ask = book or (None, None)
        top = TopOfBook(symbol, bid, ask, None, None, time_us, ts, row)
        return top if price is None else merged(Trade(symbol, price, size, time_us, ts), top)


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

    trades: list[RawRow]
    end: StopIteration | ReplayError | None = None


def not_listed(_: str) -> Instrument:
    """Return the instrument of a symbol that no catalogue has."""
    return UNLISTED


def _any_instrument(_: str) -> Instrument:
    """Return an instrument that allows every price and size: the catalogue is not known yet."""
    return _EVERYTHING


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
            rows, declared, self._columns = _rows(lines, path)
            self._unit = _recognise_unit(rows, declared, self._columns, path)
        with self._open() as lines:
            self.file = zlib.crc32(_beginning(lines).encode())

    async def run(
        self,
        updates: trio.MemorySendChannel[Update],
        listed: Listed = not_listed,
        played: Played = Played(),
    ) -> int:
        """Send the file's trades that were not played before, and wait while the channel is full.

        Rows before the last one that was played are late, so they are sent without a pause.

        Arguments:
            listed: called in a worker thread. A price or size that its instrument cannot have is a bad
                row.

        Returns the number of the next lap's first row. Errors: ReplayError if the file breaks off (a
        damaged archive), has become unreadable, or has no trade to repeat.
        """
        first_row, empty, end = played.position.row, True, None
        with self._open() as lines:
            rows, _, _ = _rows(lines, self.path)
            pace = Pace(self.speed, self.longest_gap, self._report_gap, self._report_wait)
            while end is None:
                block, end = await trio.to_thread.run_sync(self._read_block, rows, listed)
                empty = empty and not block
                for raw in block:
                    row = first_row + raw.line
                    if row > played.reached:
                        await pace.wait(raw.time_us, raw.line)
                    elif row <= played.newest(raw.symbol):
                        continue
                    update = raw.update(time_ns() // 1000, row)
                    try:
                        updates.send_nowait(update)
                    except trio.WouldBlock:
                        await updates.send(update)
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

    def _read_block(self, rows: Rows, listed: Listed) -> Block:
        """Read BLOCK_ROWS rows at most, and skip the bad ones."""
        trades: list[RawRow] = []
        for _ in range(BLOCK_ROWS):
            try:
                row = next(rows)
                trades.append(parse_row(row, rows.line_num, self._unit, self._columns, listed))
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

    def _report_wait(self, line: int, seconds: float) -> None:
        seconds = min(seconds, LONGEST_TOLD)
        until = datetime.now(UTC) + timedelta(seconds=seconds)
        log.info(
            "replay waits",
            file=str(self.path),
            line=line,
            seconds=round(seconds, 3),
            until=until.isoformat(timespec="seconds"),
        )


def parse_row(row: list[str], line: int, unit: Unit | None, columns: int, listed: Listed) -> RawRow:
    """Parse one row, in which timestamps that are numbers are in `unit`. Errors: BadRow."""
    if len(row) != columns:
        raise BadRow(f"{len(row)} fields instead of {columns}")
    try:
        symbol = read_symbol(normalize_symbol(row[1]))
    except BadRecord as bad:
        raise BadRow(f"{bad}: {row[1]!r}") from None
    if '"' in symbol:
        raise BadRow(f"fields are written without quotes: {row[1]!r}")
    instrument = listed(symbol)
    book = None
    if columns > len(HEADER):
        bid, ask = (_price(text, instrument) if text else None for text in row[len(HEADER) :])
        if bid is not None or ask is not None:
            book = (bid, ask)
    try:
        time_us = parse_timestamp(row[0], unit)
    except (BadTimestamp, ValueError) as error:
        raise BadRow(str(error)) from None
    if book and not row[2]:
        return RawRow(symbol, None, 0, book, time_us, line)
    return RawRow(
        symbol, _price(row[2], instrument), _size(row[3], instrument), book, time_us, line
    )


def _price(text: str, instrument: Instrument) -> float:
    """Errors: BadRow."""
    try:
        price = _number(text)
    except ValueError as error:
        raise BadRow(str(error)) from None
    if not is_price(price, instrument.price_decimals, signed=instrument.signed):
        raise BadRow(f"not a price: {text!r}")
    # Without the sign of a negative zero, which JSON would show.
    return price if round(price, instrument.price_decimals) else 0.0


def _size(text: str, instrument: Instrument) -> int | float:
    """Errors: BadRow."""
    try:
        size = int(text) if text.isdecimal() else _number(text)
    except ValueError as error:
        raise BadRow(str(error)) from None
    if not 0 <= size <= MAX_SIZE:
        raise BadRow(f"not a size: {text!r}")
    if size % 1 and round(size, instrument.size_decimals) != size:
        raise BadRow(f"not a size with up to {instrument.size_decimals} decimals: {text!r}")
    return abs(size)


def _number(text: str) -> float:
    """Return the number that a cell holds. Errors: ValueError."""
    # Python also takes underscores, so a slip would make 17550 of 175_50.
    if "_" in text:
        raise ValueError(f"not a number: {text!r}")
    return float(text)


def _rows(lines: TextIO, path: Path) -> tuple[Rows, Unit | None, int]:
    """Check the header. Return the rows after it, the unit that it gives, and the number of columns.

    Quotation marks have no meaning: a single one must not join lines.
    """
    rows = csv.reader(lines, quoting=csv.QUOTE_NONE)
    try:
        header = next(rows, [])
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise ReplayError(f"cannot read {path}: {error}") from None
    known = (HEADER[1:], [*HEADER[1:], *BOOK_COLUMNS])
    if header[1:] not in known or header[0] not in COLUMNS:
        raise ReplayError(
            f"{path} must start with the line {','.join(HEADER)!r}, not {','.join(header)[:80]!r}"
            f" (the first column may be {', '.join(COLUMNS)}; {' and '.join(BOOK_COLUMNS)} may follow)"
        )
    return rows, COLUMNS[header[0]], len(header)


def _recognise_unit(rows: Rows, declared: Unit | None, columns: int, path: Path) -> Unit | None:
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
                parse_row(
                    ["0", *row[1:]], rows.line_num, declared or "ns", columns, _any_instrument
                )
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
