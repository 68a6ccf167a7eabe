"""`quotestream import`: lists the instruments of a file."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import trio

from server.config.settings import Settings
from server.ops.logs import configure_logging
from server.quotes.instrument import CATEGORIES, Instrument
from server.store.embedded import load_instruments
from server.store.importing import HEADERS, BadFile, read_instruments

SAMPLE = 10
"""Instruments that a dry run shows."""


def add_import(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command to the command line's parser."""
    command = commands.add_parser(
        "import",
        help="list instruments from a file",
        description="List the instruments of a file with the columns symbol, name and, not required, "
        f"price, type ({', '.join(CATEGORIES.values())}), currency, exchange, isin, market_cap, "
        "price_decimals, size_decimals, previous_close. The separator, the encoding and the common "
        "headers of exchanges and brokers are recognized. All rows are listed, or none. An instrument "
        "without a price waits for its first trade.",
    )
    command.add_argument(
        "file", nargs="?", type=Path, metavar="FILE.csv", help="by default the shipped instruments"
    )
    command.add_argument(
        "--map",
        action="append",
        type=_column,
        default=[],
        metavar="FIELD=HEADER",
        help=f"the column of a field; fields are {', '.join(HEADERS)}",
    )
    command.add_argument(
        "--skip-bad", action="store_true", help="list the good rows of a file with bad ones"
    )
    command.add_argument(
        "--dry-run", action="store_true", help="show what would be listed, and change nothing"
    )
    command.add_argument(
        "--fresh",
        action="store_true",
        help="the symbols belonged to other instruments: forget their last prices and volumes",
    )
    command.set_defaults(run=_import)


def _import(arguments: argparse.Namespace, settings: Settings) -> None:
    from rich.console import Console
    from rich.progress import Progress

    from server.app.options import store_options
    from server.store.commands import import_instruments

    configure_logging(settings.log_format, settings.log_level)
    file = arguments.file
    instruments = _read(file, arguments) if file else load_instruments()
    if arguments.dry_run:
        for each in instruments[:SAMPLE]:
            price = price_text(each.base_price, each.price_decimals)
            print(f"{each.symbol:12} {price:>14}  {each.name}")
        print(f"{count_of(len(instruments))} would be listed{_without_price(instruments)}")
        return
    console = Console(stderr=True)
    with Progress(transient=True, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("importing", total=len(instruments))
        work = partial(import_instruments, anew=arguments.fresh)
        trio.run(
            work,
            store_options(settings),
            instruments,
            lambda done: progress.update(task, completed=done),
        )
    print(f"{count_of(len(instruments))} listed{_without_price(instruments)}")


def _read(file: Path, arguments: argparse.Namespace) -> list[Instrument]:
    """Return a file's instruments; say how it was read, and which rows are bad. Errors: BadFile."""
    instruments, problems, assumed = read_instruments(file, dict(arguments.map))
    for each in assumed:
        print(f"{file}: {each}", file=sys.stderr)
    if problems:
        for line, problem in problems[:-1] if not arguments.skip_bad else problems:
            print(f"{file} line {line}: {problem}", file=sys.stderr)
        if not arguments.skip_bad:
            last = problems[-1]
            rows = "1 bad row" if len(problems) == 1 else f"{len(problems)} bad rows"
            count = f" ({rows}; --skip-bad lists the others)"
            raise BadFile(f"{file} line {last.line}: {last.problem}{count}")
    if not instruments:
        raise BadFile(f"{file}: it holds no instrument")
    return instruments


def count_of(instruments: int) -> str:
    """Return a number of instruments in words."""
    return "1 instrument" if instruments == 1 else f"{instruments} instruments"


def price_text(price: float | None, decimals: int) -> str:
    """Return a price with its decimals, and a dash for none."""
    return "-" if price is None else f"{price:.{decimals}f}"


def _without_price(instruments: Sequence[Instrument]) -> str:
    waiting = sum(each.base_price is None for each in instruments)
    return f", {waiting} without a price until the first trade" if waiting else ""


def _column(text: str) -> tuple[str, str]:
    field, separator, header = text.partition("=")
    if not (separator and header.strip()) or field not in HEADERS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not FIELD=HEADER with a field of {', '.join(HEADERS)}"
        )
    return field, header
