"""Runs `quotestream bars` and `quotestream export bars`: a table or CSV of what a server answers."""

import argparse
import csv
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn, TextIO
from zoneinfo import ZoneInfo

from server.cli.connecting import http_address
from server.cli.credentials import client_token
from server.client.history import COLUMNS, HistoryClient, HistoryRefused
from server.client.sparkline import sparkline
from server.config.settings import Settings
from server.store.importing import BadFile

REFUSED = 2
"""The exit code if the server refuses the request, or has no such symbol."""

PAGE_BARS = 10_000
"""Bars of one page of an export: as many as the server gives."""

WIDTH, LEAST_WIDTH = 60, 8
"""Columns of the sparkline, if the terminal has room for them."""

VALUES = ("o", "h", "l", "c", "v", "n", "vw")
HEADS = ["time", "open", "high", "low", "close", "volume", "trades", "average"]
"""The columns of a table: the fields behind the time, and the names of all."""

SYMBOL = "symbol"


def show_bars(arguments: argparse.Namespace, settings: Settings) -> None:
    """Print the newest bars of a symbol."""
    symbol = arguments.symbol
    client, url = _client(arguments, settings)
    wanted = _parameters(arguments, [symbol]) | {"sort": "desc", "limit": str(arguments.limit)}
    with _refusals(url):
        page = next(iter(client.pages(wanted)))
        _progress("")
        bars = [*page.bars.get(symbol, ())][::-1]
        if not bars and not client.exists(symbol):
            _refuse(f"{symbol} is not listed")
    if arguments.csv or not sys.stdout.isatty():
        _rows(sys.stdout).writerows(_row(symbol, bar) for bar in bars)
    elif bars:
        # Days begin in this zone, so their times are midnights in it.
        zone = arguments.tz or client.zone(symbol)
        _show(symbol, arguments.timeframe, bars, ZoneInfo(zone))
    if not bars:
        print(f"no bars of {symbol} in this range", file=sys.stderr)


def export_bars(arguments: argparse.Namespace, settings: Settings) -> None:
    """Write the bars of some symbols as CSV."""
    client, url = _client(arguments, settings)
    wanted = _parameters(arguments, arguments.symbols) | {"limit": str(PAGE_BARS)}
    count, symbols = 0, set[str]()
    with _refusals(url), _output(arguments.output) as file:
        rows = _rows(file)
        for page in client.pages(wanted):
            for symbol, bars in page.bars.items():
                rows.writerows(_row(symbol, bar) for bar in bars)
                count += len(bars)
                symbols.add(symbol)
            if page.next_page_token:
                _progress(f"{count:,} bars so far, {max(symbols)}")
    _progress("")
    print(f"{_number(count, 'bar')} of {_number(len(symbols), 'symbol')}", file=sys.stderr)
    if missing := [each for each in arguments.symbols if each not in symbols]:
        print(f"not listed, or without bars: {', '.join(missing)}", file=sys.stderr)


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _client(arguments: argparse.Namespace, settings: Settings) -> tuple[HistoryClient, str]:
    url = arguments.url or http_address(settings)
    token = client_token(arguments.token, arguments.token_file, settings)
    return HistoryClient(url, token, lambda line: _progress(f"{url}: {line}")), url


def _parameters(arguments: argparse.Namespace, symbols: Sequence[str]) -> dict[str, str]:
    names = ("timeframe", "start", "end", "tz", "fill")
    return {"symbols": ",".join(symbols)} | {name: getattr(arguments, name) or "" for name in names}


@contextmanager
def _refusals(url: str) -> Iterator[None]:
    """End the command with one line if the server refuses."""
    try:
        yield
    except HistoryRefused as refused:
        _progress("")
        _refuse(f"{url}: {refused}")


def _refuse(problem: str) -> NoReturn:
    print(f"quotestream: {problem}", file=sys.stderr)
    sys.exit(REFUSED)


def _progress(text: str) -> None:
    """Show one line in place of the last one, on a terminal."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


@contextmanager
def _output(name: str) -> Iterator[TextIO]:
    """Open standard output for `-`, or a file. Errors: BadFile."""
    if name == "-":
        yield sys.stdout
        # A full disk is an error before the command tells how many bars it wrote.
        sys.stdout.flush()
        return
    path = Path(name)
    try:
        if path.exists() and not path.is_file():
            # A pipe or a device is not replaced. A directory is an error.
            with path.open("w", newline="", encoding="utf-8") as file:
                yield file
        else:
            with _replacing(path) as file:
                yield file
    except OSError as error:
        raise BadFile(f"cannot write {name or path}: {error.strerror}") from None


@contextmanager
def _replacing(path: Path) -> Iterator[TextIO]:
    """Open a file that appears when it is complete. Errors: OSError."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("x", newline="", encoding="utf-8") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _rows(file: TextIO) -> Any:
    """Return a CSV writer (RFC 4180) that has written the header."""
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow([SYMBOL, *COLUMNS])
    return rows


def _row(symbol: str, bar: Mapping[str, Any]) -> list[str]:
    return [symbol, *map(_cell, (bar[name] for name in COLUMNS))]


def _cell(value: Any) -> str:
    """Return a value as JSON has it, an empty text for null."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _show(symbol: str, timeframe: str, bars: Sequence[Mapping[str, Any]], tz: ZoneInfo) -> None:
    """Print a table below a sparkline of the closing prices. It is as wide as its values."""
    closes = [float(bar["c"]) for bar in bars]
    if closes:
        before, after = f"{symbol} {timeframe}", f"{_short(min(closes))} to {_short(max(closes))}"
        room = shutil.get_terminal_size().columns - len(before) - len(after) - 4
        line = sparkline(closes, max(LEAST_WIDTH, min(WIDTH, room)))
        if _can_print(line):
            print(f"{before}  {line}  {after}")
    rows = [HEADS, *([_time(bar, tz), *(_cell(bar[name]) for name in VALUES)] for bar in bars)]
    first, *widths = (max(map(len, column)) for column in zip(*rows, strict=True))
    for row, bar in zip(rows, (None, *bars), strict=True):
        cells = (f"{cell:>{width}}" for cell, width in zip(row[1:], widths, strict=True))
        print(" ".join([row[0].ljust(first), *cells]) + (_state(bar) if bar else ""))


def _short(price: float) -> str:
    return repr(price).removesuffix(".0")


def _time(bar: Mapping[str, Any], tz: ZoneInfo) -> str:
    return f"{datetime.fromisoformat(bar['t']).astimezone(tz):%Y-%m-%d %H:%M %Z}"


def _state(bar: Mapping[str, Any]) -> str:
    if bar["rev"] != "0":
        return f"  revised {bar['rev']}"
    return "" if bar["final"] else "  open"


def _can_print(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
