"""The command line and the first line of output of all peers."""

import argparse
import socket


def settings() -> tuple[float, int]:
    """Return the rounds a second, and the messages for each connection in a round."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=float, default=1.0)
    parser.add_argument("--burst", type=int, default=1)
    options = parser.parse_args()
    return options.rate, options.burst


def say_address(listener: socket.socket) -> None:
    """Print the address that the benchmark connects to."""
    print("quotes", f"ws://127.0.0.1:{listener.getsockname()[1]}/ws/quotes", flush=True)
