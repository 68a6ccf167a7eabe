"""The arguments of commands that connect to a server: its address, and the token to show there."""

import argparse
from collections.abc import Callable
from urllib.parse import urlsplit

from server.cli.argument_types import url as streaming_address
from server.cli.argument_types import word
from server.config.settings import Settings


def add_connection(
    command: argparse.ArgumentParser, kind: Callable[[str], str] = streaming_address
) -> None:
    """Add `--url`, of the streaming port by default, `--token` and `--token-file`."""
    command.add_argument(
        "--url", type=kind, help="by default the server that the environment configures"
    )
    token = command.add_mutually_exclusive_group()
    token.add_argument(
        "--token-file",
        metavar="FILE",
        help="a file whose first line is the token; - for standard input",
    )
    token.add_argument(
        "--token",
        type=word,
        help="the token itself. Other users of this machine can see it with `ps`: "
        "QUOTESTREAM_TOKEN and --token-file keep it private",
    )


def with_path(url: str, path: str) -> str:
    """Return an address with `path` if it has none."""
    return url if urlsplit(url).path else url + path


def streaming_url(settings: Settings, path: str) -> str:
    """Return the address of a path on the streaming port that the settings name."""
    host = f"[{settings.ws_host}]" if ":" in settings.ws_host else settings.ws_host
    return f"ws://{host}:{settings.ws_port}{path}"


def http_address(settings: Settings) -> str:
    """Return the address of the HTTP port that the settings name."""
    host = f"[{settings.http_host}]" if ":" in settings.http_host else settings.http_host
    return f"http://{host}:{settings.http_port}"
