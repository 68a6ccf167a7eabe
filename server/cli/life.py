"""`quotestream rename` and `split`: what happens to an instrument while it is listed."""

import argparse
from functools import partial
from typing import Any

import trio

from server.cli.argument_types import symbol, utf8
from server.config.settings import Settings
from server.ops.logs import configure_logging
from server.quotes.adjustment import ChangeRefused, parse_ratio, split
from server.store.cells import BadCell, read_symbol_cell


def add_life(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the commands to the command line's parser."""
    command = commands.add_parser(
        "rename",
        help="give an instrument another symbol",
        description="Give an instrument another symbol. Its price, volume and version go on. "
        "Subscribers on running servers lose the old symbol and get the new one.",
    )
    command.add_argument("old", metavar="OLD", type=symbol, help="the symbol it has")
    command.add_argument("new", metavar="NEW", type=utf8, help="a symbol that is not listed")
    command.set_defaults(run=_rename)

    command = commands.add_parser(
        "split",
        help="divide an instrument's prices after a split of the share",
        description="Divide an instrument's base price and last price after a split of the share, and "
        "multiply its volume. Subscribers on running servers get the full quote.",
    )
    command.add_argument("symbol", metavar="SYMBOL", type=symbol)
    command.add_argument(
        "ratio", metavar="NEW:OLD", help="4:1 for four new shares for one; 1:10 for one for ten"
    )
    command.add_argument(
        "--again",
        action="store_true",
        help="the share was split in this ratio before, and is split once more",
    )
    command.set_defaults(run=_split)


def _rename(arguments: argparse.Namespace, settings: Settings) -> None:
    from server.app.options import store_options
    from server.store.commands import rename

    configure_logging(settings.log_format, settings.log_level)
    old = arguments.old
    try:
        new = read_symbol_cell(arguments.new)
    except BadCell as bad:
        raise ChangeRefused(f"{bad}; nothing was renamed") from None
    if old == new:
        raise ChangeRefused(f"{old} has this symbol already; nothing was renamed")
    trio.run(rename, store_options(settings), old, new)
    print(f"{old} is {new} now")


def _split(arguments: argparse.Namespace, settings: Settings) -> None:
    from server.app.options import store_options
    from server.store.commands import adjust

    configure_logging(settings.log_format, settings.log_level)
    ratio = parse_ratio(arguments.ratio)
    change = partial(split, ratio=ratio, again=arguments.again)
    row = trio.run(adjust, store_options(settings), arguments.symbol, change)
    print(
        f"{row.symbol} split {ratio}: its base price is {row.base_price:.{row.price_decimals}f} now"
    )
