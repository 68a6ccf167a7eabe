"""The command line and the first line of output that all peers share."""

import argparse
import socket


def settings() -> tuple[float, int]:
    """Rounds a second, and messages a round and connection."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=float, default=1.0)
    parser.add_argument("--burst", type=int, default=1)
    options = parser.parse_args()
    return options.rate, options.burst


def say_address(listener: socket.socket) -> None:
    """Tell the benchmark where to connect."""
    print("quotes", f"ws://127.0.0.1:{listener.getsockname()[1]}/ws/quotes", flush=True)
