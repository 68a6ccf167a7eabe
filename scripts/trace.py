"""Follow one price through a running server, from the replayed file to a client's socket.

`scripts/python scripts/trace.py` prints the table of docs/architecture.md. It runs a whole server.
Python's profiler hook notes when the price passes the functions named in STATIONS.
"""

import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from time import perf_counter
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

import trio

from server.app.serve import serve
from server.config.settings import Settings
from server.config.values import FeedChoice
from server.gateway.auth import Authenticator
from server.ops.logs import configure_logging
from server.process.listeners import Addresses

SECRET = "a secret for a minute, of 32 bytes"

# The first trade passes before a client watches; the trace follows the second.
DAY = (
    "timestamp_ms,symbol,price,size\n1764012345678,AAPL,175.50,100\n1764012346678,AAPL,175.92,200\n"
)

STATIONS: dict[str, Callable[[dict[str, Any]], object]] = {
    "Inbox.offer": lambda at: at["update"],
    "Topic.publish": lambda at: (
        f"version {at['self'].version} is about to be {at['self'].version + 1}"
    ),
    "difference": lambda at: f"{at['old'].current_price} becomes {at['new'].current_price}",
    "message_frame": lambda at: f"{len(at['payload'])} bytes of JSON, made for everybody at once",
    "Flusher.queue": lambda at: f"to {len(at['outboxes'])} outboxes",
    "Outbox.flush": lambda at: f"{len(at['self'].queue)} frame, one write",
}


class Trace:
    """Notes what happened when, in seconds of `perf_counter`."""

    def __init__(self) -> None:
        self.lines: list[tuple[float, str, object]] = []

    def note(self, where: str, what: object) -> None:
        """Note that something happens now."""
        self.lines.append((perf_counter(), where, what))

    def profile(self, frame: FrameType, event: str, _: object) -> None:
        """Note a call of a station; Python calls this as its profiler hook."""
        station = frame.f_code.co_qualname
        if event == "call" and station in STATIONS:
            self.note(station, STATIONS[station](frame.f_locals))

    def print(self) -> None:
        """Print what happened since the second trade came to its inbox."""
        first = max(i for i, line in enumerate(self.lines) if line[1] == "Inbox.offer")
        start = self.lines[first][0]
        last = next(i for i, line in enumerate(self.lines) if line[1] == "client")
        for moment, where, what in self.lines[first : last + 1]:
            print(f"{(moment - start) * 1e6:7.0f} µs  {where:<14} {what}")


def listen(trace: Trace, authenticator: Authenticator, addresses: Addresses) -> None:
    """Connect as a client, read the snapshot and one update, and stop the server."""
    url = urlsplit(addresses.quotes)
    token = authenticator.sign("trace", 60)
    with socket.create_connection((url.hostname, url.port or 80)) as sock:
        request = (
            f"GET {url.path}?symbols=AAPL&token={token} HTTP/1.1\r\nHost: {url.netloc}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        sock.sendall(request.encode())
        received = b""
        while b'"op":"add"' not in received:
            received += sock.recv(65536)
        update = sock.recv(65536)
        trace.note("client", f"{len(update)} bytes: {update[:4].hex(' ')} {update[4:].decode()}")
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Run the server with the profiler hook until the client has its update."""
    configure_logging("json", "error")
    trace = Trace()
    authenticator = Authenticator(secret=SECRET)

    def start_client(addresses: Addresses) -> None:
        Thread(target=listen, args=(trace, authenticator, addresses)).start()

    with tempfile.TemporaryDirectory() as folder:
        day = Path(folder) / "day.csv"
        day.write_text(DAY)
        settings = Settings(
            ws_port=0,
            http_port=0,
            feed=FeedChoice.parse(f"replay:{day}"),
            sqlite_path=f"{folder}/quotes.db",
        )
        sys.setprofile(trace.profile)
        trio.run(serve, settings, authenticator, lambda: (settings, authenticator), start_client)
        sys.setprofile(None)
    trace.print()


if __name__ == "__main__":
    main()
