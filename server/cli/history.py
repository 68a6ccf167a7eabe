"""The arguments of `quotestream bars` and `quotestream export bars`."""

import argparse
from typing import Any, get_args

from server.cli.argument_types import http_url, symbol, time_zone, utf8
from server.cli.connecting import add_connection
from server.config.settings import Settings
from server.config.values import NameList
from server.quotes.traded import Timeframe

MOST_BARS = 10_000
"""Bars that `bars` shows at most. An export has no limit."""


def add_history(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the commands to the command line's parser."""
    command = commands.add_parser(
        "bars",
        help="show the bars of a symbol",
        description="Show the bars of a symbol: the newest of the range, the oldest first. A terminal "
        "gets a table with a sparkline of the closing prices, anything else gets CSV.",
    )
    command.add_argument("symbol", metavar="SYMBOL", type=symbol)
    _add_range(command)
    command.add_argument("--csv", action="store_true", help="write CSV, also to a terminal")
    command.add_argument(
        "--limit",
        type=_limit,
        default=1000,
        metavar="N",
        help=f"the newest N bars, up to {MOST_BARS}; 1000 by default",
    )
    command.set_defaults(run=_bars)

    command = commands.add_parser("export", help="write history to a file")
    kinds = command.add_subparsers(required=True, metavar="KIND")
    command = kinds.add_parser(
        "bars",
        help="write bars as CSV",
        description="Write the bars of some symbols as CSV, symbol by symbol. The file appears when it "
        "is complete. Progress goes to standard error.",
    )
    command.add_argument("--symbols", required=True, type=_symbols, metavar="AAPL,MSFT")
    _add_range(command)
    command.add_argument("--output", default="-", metavar="FILE", help="by default standard output")
    command.set_defaults(run=_export)


def _add_range(command: argparse.ArgumentParser) -> None:
    timeframes = get_args(Timeframe)
    command.add_argument(
        "--timeframe",
        choices=timeframes,
        default="1m",
        metavar="5m",
        help=f"one of {', '.join(timeframes)}; by default 1m",
    )
    command.add_argument(
        "--start",
        type=utf8,
        default="",
        metavar="TIME",
        help="2026-11-25 or RFC 3339; by default today",
    )
    command.add_argument(
        "--end",
        type=utf8,
        default="",
        metavar="TIME",
        help="the same; a day means its end; by default now",
    )
    command.add_argument(
        "--tz",
        type=time_zone,
        metavar="ZONE",
        help="time zone of days, and of times in a table: America/New_York; by default the server's",
    )
    command.add_argument(
        "--fill",
        choices=("none", "previous"),
        default="none",
        help="previous: also periods without a trade",
    )
    add_connection(command, http_url)


def _bars(arguments: argparse.Namespace, settings: Settings) -> None:
    # Other commands do without an HTTP client.
    from server.cli.bars import show_bars

    show_bars(arguments, settings)


def _export(arguments: argparse.Namespace, settings: Settings) -> None:
    from server.cli.bars import export_bars

    export_bars(arguments, settings)


def _symbols(text: str) -> list[str]:
    names = dict.fromkeys(symbol(name) for name in NameList.parse(text))
    if not names:
        raise argparse.ArgumentTypeError("no symbol, for instance AAPL,MSFT")
    return [*names]


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= MOST_BARS):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of bars from 1 to {MOST_BARS}")
    return int(text)
