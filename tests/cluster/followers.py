"""Clients that come back as the protocol asks them to, each in a thread; they note what is wrong."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import connect

from tests.cluster.host import Host
from tests.gateway.wire import new_user
from tests.processes import make_token

CONNECT_TIMEOUT = 5.0
"""Seconds: a first packet that a leaving worker dropped comes again after one."""


class Follower(threading.Thread):
    """Connects, reads, and comes back when it is sent away. `faults` are to be none."""

    def __init__(self, host: Host, symbols: str) -> None:
        super().__init__()
        self._host = host
        self._url = host.url(symbols, make_token(new_user()))
        self.faults: list[str] = []
        self.visits = 0
        self.messages = 0
        self.gap = 0.0
        self.connected = threading.Event()
        self._over = threading.Event()

    def run(self) -> None:
        """Until told to stop."""
        left_at = 0.0
        while not self._over.is_set():
            try:
                with connect(self._url, open_timeout=CONNECT_TIMEOUT) as connection:
                    connection.recv(CONNECT_TIMEOUT)
                    self.visits += 1
                    self.connected.set()
                    if left_at:
                        self.gap = max(self.gap, time.monotonic() - left_at)
                    wait = self._read(connection)
            except (OSError, InvalidHandshake, TimeoutError, ConnectionClosed) as error:
                self.faults.append(f"cannot connect: {error!r}")
                wait = 0.1
            left_at = time.monotonic()
            self._over.wait(wait)

    def _read(self, connection: Any) -> float:
        """Until the connection ends; the seconds to stay away."""
        wait = None
        try:
            while not self._over.is_set():
                try:
                    message = json.loads(connection.recv(0.2))
                except TimeoutError:
                    continue
                self.messages += 1
                if message["type"] == "reconnect":
                    wait = message["after_ms"] / 1000
        except ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else None
            if code != 1001 or wait is None:
                self.faults.append(f"closed with {code}, to come back after {wait}")
        return wait or 0.0

    def stop(self) -> None:
        """Leave for good."""
        self._over.set()


@contextmanager
def followers(host: Host, size: int, symbols: str = "AAPL") -> Iterator[list[Follower]]:
    """So many, all connected."""
    crowd = [Follower(host, symbols) for _ in range(size)]
    for follower in crowd:
        follower.start()
    try:
        for follower in crowd:
            assert follower.connected.wait(20), follower.faults
        yield crowd
    finally:
        for follower in crowd:
            follower.stop()
        for follower in crowd:
            follower.join()


def faults(crowd: list[Follower]) -> list[str]:
    """What was wrong with any of them."""
    return [fault for follower in crowd for fault in follower.faults]
