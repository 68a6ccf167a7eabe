"""`quotestream publish`: sends the prices of a file, or of standard input, to a server."""

import argparse
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import trio

from server.cli.connecting import add_connection, streaming_url, with_path
from server.cli.credentials import BadTokenSource, client_token
from server.config.settings import Settings
from server.gateway.auth import PUBLISHER
from server.store.importing import BadFile

SHOWN_REJECTIONS = 20
"""Rejected lines that are shown; the summary counts the others."""

REJECTED = 1
"""The exit code if any object was rejected, or if the server refuses all."""

REFRESH_INTERVAL = 0.2
"""Seconds between two looks at the progress."""


def add_publish(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command to the command line's parser."""
    command = commands.add_parser(
        "publish",
        help="send prices to a server with FEED=push",
        description="Send prices to a server with FEED=push. The file holds JSON objects, one a line, "
        "a JSON array, or CSV with a header: symbol, price, size, ts, id, seq, bid, ask, ... "
        "A lost connection is made again, and each price counts once. "
        "The token needs the role publisher.",
    )
    command.add_argument(
        "file", nargs="?", default="-", metavar="FILE", help="by default standard input"
    )
    command.add_argument("--source", default="", metavar="NAME", help="by default the token's user")
    add_connection(command)
    command.set_defaults(run=_publish)


def _publish(arguments: argparse.Namespace, settings: Settings) -> None:
    from quotestream.errors import Refused
    from server.client.publish import Summary, publish

    if arguments.file == arguments.token_file == "-":
        raise BadTokenSource("standard input cannot be both the prices and the token")
    url = arguments.url or streaming_url(settings, "/ws/prices")
    if url.endswith("/ws/quotes"):
        # A server prints this address of its port at its start.
        url = url.removesuffix("/ws/quotes") + "/ws/prices"
    token = client_token(arguments.token, arguments.token_file, settings, PUBLISHER)
    summary = Summary()
    with _opened(arguments.file) as file:
        target = with_path(url, "/ws/prices")
        task = partial(publish, file, target, token, arguments.source, summary, _Reporter(url))
        try:
            trio.run(_show_progress, task, lambda: summary.answered)
        except Refused as refused:
            _say(f"quotestream: {url}: {refused}")
            sys.exit(REJECTED)
        finally:
            print(summary)
    if summary.rejected:
        sys.exit(REJECTED)


class _Reporter:
    """Shows the first SHOWN_REJECTIONS rejected objects, and each lost connection."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._rejected = 0

    def on_rejected(self, line: int, code: str, message: str) -> None:
        self._rejected += 1
        if self._rejected <= SHOWN_REJECTIONS:
            _say(f"line {line}: {code}: {message}")

    def on_wait(self, problem: str, seconds: float) -> None:
        _say(f"{self._url}: {problem}; trying again in {seconds:.1f} s")


async def _show_progress(task: Callable[[], Awaitable[None]], done: Callable[[], int]) -> None:
    """Show the number of objects that are `done` until `task` is."""
    from rich.console import Console
    from rich.progress import Progress, TextColumn

    console = Console(stderr=True)
    column = TextColumn("published {task.completed:,}")
    with Progress(
        column, transient=True, console=console, disable=not console.is_terminal
    ) as progress:
        row = progress.add_task("", total=None)

        async def refresh() -> None:
            while True:
                await trio.sleep(REFRESH_INTERVAL)
                progress.update(row, completed=done())

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(refresh)
                await task()
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            # The task failed; the other was only cancelled.
            raise group.exceptions[0] from None


@contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    """Open a file, or standard input for `-`. Errors: BadFile."""
    path = "/dev/stdin" if name == "-" else name
    with ExitStack() as stack:
        try:
            # A buffer would be locked by the thread that still waits for it when the command ends.
            file = stack.enter_context(Path(path).open("rb", buffering=0))
        except OSError as error:
            shown = "standard input" if name == "-" else name
            raise BadFile(f"cannot read {shown}: {error.strerror}") from None
        yield file


def _say(text: str) -> None:
    print(text, file=sys.stderr)
