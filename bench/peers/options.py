"""The command line and the first line of output of all peers."""

import argparse
import socket
from typing import NamedTuple

from bench.forms import FORMS, Form
from bench.message import Update, updates


class Settings(NamedTuple):
    """Rounds a second, messages for each connection in a round, and the maker of messages."""

    rate: float
    burst: int
    update: Update


def settings() -> Settings:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=float, default=1.0)
    parser.add_argument("--burst", type=int, default=1)
    parser.add_argument("--format", choices=FORMS, default=Form.name)
    parser.add_argument("--fields", default="")
    options = parser.parse_args()
    return Settings(options.rate, options.burst, updates(FORMS[options.format](options.fields)))


def say_address(listener: socket.socket) -> None:
    """Print the address that the benchmark connects to."""
    print("quotes", f"ws://127.0.0.1:{listener.getsockname()[1]}/ws/quotes", flush=True)
