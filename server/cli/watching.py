"""The command `quotestream watch`."""

import argparse
from typing import Any

import trio

from server.cli.argument_types import http_url, positive, symbol
from server.cli.connecting import add_connection, http_address, streaming_url, with_path
from server.cli.credentials import client_token
from server.config.redaction import redact
from server.config.settings import Settings
from server.config.values import NameList
from server.quotes.view import FORMS

EPILOG = """keys: ? shows them all. Arrows choose, a adds a symbol, d removes one, s and r sort,
c draws a chart, t changes its span, p pauses, q quits."""


def add_watch(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command to the command line's parser."""
    command = commands.add_parser(
        "watch",
        help="show live quotes in the terminal",
        description="Show live quotes in the terminal, as lines in a pipe. The token comes from "
        "--token-file or from the variable QUOTESTREAM_TOKEN; otherwise it is made with the "
        "configured secret.",
        epilog=EPILOG,
    )
    command.add_argument(
        "symbols", nargs="*", type=symbol, metavar="SYMBOL", help="AAPL MSFT, or '*'"
    )
    command.add_argument(
        "--top",
        type=positive,
        default=0,
        metavar="N",
        help="only the N symbols with the most updates in the last minute, of all or of those named",
    )
    command.add_argument(
        "--json",
        dest="output",
        action="store_const",
        const="json",
        default="table",
        help="one JSON object a line for each change, for other programs",
    )
    command.add_argument(
        "--format",
        choices=FORMS,
        help="form of the server's messages; by default compact if the server has it, else json",
    )
    command.add_argument(
        "--fields",
        type=NameList.parse,
        default=(),
        metavar="current_price,volume",
        help="the fields of a quote to get; by default all",
    )
    command.add_argument(
        "--http-url",
        type=http_url,
        help="the HTTP port, for the history of sparklines and charts; by default that of the "
        "environment, if --url is not given or is its streaming port",
    )
    add_connection(command)
    command.set_defaults(run=_watch, parser=command)


def _watch(arguments: argparse.Namespace, settings: Settings) -> None:
    from server.client.figures import clean
    from server.client.stream import StreamRefused
    from server.client.watch import Wishes, watch

    # With commas, too, as the key `a` takes them.
    symbols = [each for word in arguments.symbols for each in word.split(",") if each.strip()]
    if not symbols and not arguments.top:
        arguments.parser.error("name symbols, '*' for all, or --top N")
    own = streaming_url(settings, "/ws/quotes")
    url = arguments.url or own
    target = with_path(url, "/ws/quotes")
    http = arguments.http_url or (http_address(settings) if target == own else "")
    token = client_token(arguments.token, arguments.token_file, settings)
    wishes = Wishes(
        symbols, arguments.format, arguments.fields, arguments.top, arguments.output, http
    )
    try:
        trio.run(watch, target, token, wishes)
    except StreamRefused as error:
        arguments.parser.exit(2, f"quotestream: {clean(redact(f'{url}: {error}'))}\n")
