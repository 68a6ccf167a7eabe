"""Replays recorded trades from a CSV file (`timestamp_ms,symbol,price,size`), at any speed.

A worker thread reads the file in blocks, so neither its size nor a slow disk matters.
"""

import csv
import gzip
import zlib
from collections.abc import Callable
from itertools import dropwhile
from pathlib import Path
from time import monotonic, time_ns
from typing import NamedTuple, Protocol, TextIO

import structlog
import trio

from server.quotes.instrument import FIRST_SEEN_DECIMALS, is_price, normalize_symbol
from server.quotes.record import BadRecord, read_symbol
from server.quotes.snapshot import LATEST_US
from server.quotes.update import Trade

HEADER = ["timestamp_ms", "symbol", "price", "size"]

BLOCK_ROWS = 1024
"""Rows read at a time: 2 ms of parsing, after which other tasks run."""

REPORT_INTERVAL = 1.0
"""Seconds between two log lines about bad rows."""

MAX_SIZE = 10**12
"""Shares in one trade: more than any company has issued."""

MAX_TIMESTAMP_MS = LATEST_US // 1000
"""The end of the year 9999, the last one that a timestamp on the wire can name."""

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
    """A recorded trade; `time_ms` is in milliseconds since the Unix epoch."""

    symbol: str
    price: float
    size: int
    time_ms: int

    @property
    def time_us(self) -> int:
        """Return the time in microseconds since the Unix epoch."""
        return self.time_ms * 1000


class Block(NamedTuple):
    """The trades of some rows. `end` tells how the file ended behind them, None if it goes on."""

    trades: list[RawTrade]
    end: StopIteration | ReplayError | None = None


def as_first_seen(_: str) -> int:
    """Return the tick precision of symbols that no catalogue has."""
    return FIRST_SEEN_DECIMALS


class Replay:
    """One recorded file. `bad_rows` counts the rows skipped so far."""

    def __init__(self, path: Path, speed: float, *, loop: bool) -> None:
        """Check the file's header.

        Arguments:
            speed: how many times faster than recorded; 0 for as fast as the server takes trades.
            loop: start over at the end.

        Errors: ReplayError if there is no such file or it does not start with HEADER.
        """
        self.path = path
        self.speed = speed
        self.loop = loop
        self.bad_rows = 0
        self._report_at = 0.0
        with self._open() as lines:
            _rows(lines, path)

    async def run(
        self,
        trades: trio.MemorySendChannel[Trade],
        price_decimals: PriceDecimals = as_first_seen,
        after: int = 0,
    ) -> None:
        """Send every trade of the file, and wait while the channel is full.

        Arguments:
            price_decimals: called in a worker thread. A price that rounds to zero at its symbol's
                tick is a bad row.
            after: begin with the first trade later than this, in microseconds since the Unix epoch.
                If the file ends before it, `after` belongs to another file, and all trades are sent.

        Errors: ReplayError if the file breaks off (a damaged archive), has become unreadable, or has
        no trade to repeat.
        """
        while (last := await self._run_once(trades, price_decimals, after)) is not None:
            if not self.loop and last >= after:
                return
            after = 0
        if self.loop:
            raise ReplayError(f"{self.path} holds no trade to repeat")

    async def _run_once(
        self, trades: trio.MemorySendChannel[Trade], price_decimals: PriceDecimals, after: int
    ) -> int | None:
        """Return the last trade's time in microseconds since the Unix epoch, None without a trade."""
        last, skipping = None, after > 0
        with self._open() as lines:
            rows = _rows(lines, self.path)
            pace = Pace(self.speed)
            end = None
            while end is None:
                block, end = await trio.to_thread.run_sync(self._read_block, rows, price_decimals)
                last = block[-1].time_us if block else last
                if skipping:
                    block = [*dropwhile(lambda trade: trade.time_us <= after, block)]
                    skipping = not block
                for symbol, price, size, time_ms in block:
                    await pace.wait(time_ms)
                    trade = Trade(symbol, price, size, time_ms * 1000, time_ns() // 1000)
                    try:
                        trades.send_nowait(trade)
                    except trio.WouldBlock:
                        await trades.send(trade)
        if isinstance(end, ReplayError):
            raise end
        return last

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
                trades.append(parse_row(next(rows), price_decimals))
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


class Pace:
    """Keeps the recorded intervals between trades, divided by `speed`; none if it is 0."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._started: tuple[float, int] | None = None

    async def wait(self, time_ms: int) -> None:
        """Sleep until the trade recorded at `time_ms` is due."""
        if self._speed == 0:
            return
        if self._started is None:
            self._started = trio.current_time(), time_ms
        started_at, first_ms = self._started
        due = started_at + (time_ms - first_ms) / 1000 / self._speed
        if due > trio.current_time():
            await trio.sleep_until(due)


def parse_row(row: list[str], price_decimals: PriceDecimals) -> RawTrade:
    """Parse one row. Errors: BadRow."""
    if len(row) != len(HEADER):
        raise BadRow(f"{len(row)} fields instead of {len(HEADER)}")
    try:
        time_ms, price, size = int(row[0]), float(row[2]), int(row[3])
    except ValueError as error:
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
    if not 0 <= time_ms <= MAX_TIMESTAMP_MS:
        raise BadRow(f"not a timestamp: {row[0]!r}")
    return RawTrade(symbol, price, size, time_ms)


def _rows(lines: TextIO, path: Path) -> Rows:
    """Check the header and return the rows after it. Quotation marks have no meaning: a single one must
    not join lines.
    """
    rows = csv.reader(lines, quoting=csv.QUOTE_NONE)
    try:
        header = next(rows, [])
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise ReplayError(f"cannot read {path}: {error}") from None
    if header != HEADER:
        raise ReplayError(
            f"{path} must start with the line {','.join(HEADER)!r}, not {','.join(header)[:80]!r}"
        )
    return rows
