"""Clients that read all the time, but slower than prices come: none is starved."""

import fcntl
import json
import socket
import sys
import termios
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.gateway.wire import Client, new_user
from tests.processes import ServerProcess, eventually, make_token
from tests.stopwatch import Stopwatch

RATES = [2_000, 12_000, 50_000, 200_000]
"""Bytes a second, from a phone at the edge of its network to a busy laptop."""

SYMBOLS = 20

ANSWER_TIMEOUT = 2.0
"""Seconds in which every command is answered."""

BUFFER = 4096
"""Bytes of the link's receive buffer."""

SEGMENT = 1000
"""Bytes of a TCP segment."""

TCP = Path("/proc/net/tcp")
"""The kernel's TCP connections: their addresses, and the bytes in their queues (proc_net_tcp)."""

SLICE = 0.05
"""Seconds between two reads of the slow link."""


class SlowLink:
    """A connection to the server of so many bytes a second, whose far end is a port of this machine.

    It takes little from the server in advance, as its receive buffer holds no more.
    """

    def __init__(self, server: ServerProcess, rate: int) -> None:
        self.rate = rate
        self._server = socket.socket()
        self._server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        # Segments as on the internet. This machine's own of 64 KB do not fit such a buffer.
        self._server.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT)
        self._server.connect(server.address)
        self.near, self._far = socket.socketpair()
        for pump in (self._up, self._down):
            threading.Thread(target=pump, daemon=True).start()

    @property
    def held(self) -> int:
        """The bytes that the kernel holds at both ends, or soon holds: while a command is on its way,
        the buffer may fill, and a segment may follow.
        """
        taken = fcntl.ioctl(self._server, termios.FIONREAD, bytes(4))
        ports = [self._server.getpeername()[1], self._server.getsockname()[1]]
        sent = next(
            int(queues.partition(":")[0], 16)
            for _, local, remote, _, queues, *_ in map(str.split, TCP.read_text().splitlines()[1:])
            if [int(each.partition(":")[2], 16) for each in (local, remote)] == ports
        )
        return max(int.from_bytes(taken, sys.byteorder) + sent, BUFFER + SEGMENT)

    def close(self) -> None:
        for each in (self._server, self.near, self._far):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _up(self) -> None:
        with suppress(OSError):
            while data := self._far.recv(4096):
                self._server.sendall(data)

    def _down(self) -> None:
        start, taken = time.monotonic(), 0
        with suppress(OSError):
            while True:
                allowed = int((time.monotonic() - start) * self.rate) - taken
                if allowed > 0:
                    data = self._server.recv(allowed)
                    if not data:
                        return
                    taken += len(data)
                    self._far.sendall(data)
                time.sleep(SLICE)


@contextmanager
def slow_client(
    server: ServerProcess, rate: int, symbols: str
) -> Iterator[tuple[Client, SlowLink]]:
    """A library's client behind a slow link. It pings each second, and closes without an answer."""
    link = SlowLink(server, rate)
    try:
        with Client(
            server, symbols, token=make_token(new_user()), sock=link.near,
            open_timeout=20, ping_interval=1, ping_timeout=15,
        ) as client:  # a table # fmt: skip
            yield client, link
    finally:
        link.close()


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server whose symbols make 20 KB a second."""
    with ServerProcess(tmp_path_factory.mktemp("quick"), PRICE_UPDATE_INTERVAL="200ms") as process:
        yield process


def symbols_of(server: ServerProcess) -> list[str]:
    status, found = server.ask(f"/instruments?limit={SYMBOLS}")
    assert status == 200
    return [each["symbol"] for each in found]


def test_steady_readers_of_any_speed_are_served(quick):
    """Each stays connected, is answered in time, and gets every symbol again and again."""
    symbols = symbols_of(quick)
    with ThreadPoolExecutor(len(RATES)) as pool:
        for each in [pool.submit(serve, quick, rate, symbols) for rate in RATES]:
            each.result()
    eventually(lambda: quick.metric("market_data_subscriptions") == 0)


class Watching:
    """A client that notes when each symbol came, and how long its answers take."""

    def __init__(
        self, server: ServerProcess, client: Client, link: SlowLink, symbols: list[str]
    ) -> None:
        self._pid = server.process.pid
        self._client = client
        self._link = link
        self._largest = 0
        self.seen: dict[str, list[float]] = {symbol: [time.monotonic()] for symbol in symbols}

    def ask(self, kind: str, action: str, **fields: object) -> dict[str, object]:
        """Send a command, and return its answer, which comes in time."""
        watch, held = Stopwatch(self._pid), self._link.held
        self._client.send(action, **fields)
        while (message := self.receive())["type"] != kind:
            pass
        seconds = watch.seconds
        # The first part of the largest message was on its way.
        limit = ANSWER_TIMEOUT + (held + self._largest) / self._link.rate
        assert seconds < limit, (action, seconds, limit)
        return message

    def read_until(self, moment: float) -> None:
        while time.monotonic() < moment:
            self.receive()

    def receive(self) -> dict[str, object]:
        message = self._client.receive()
        self._largest = max(self._largest, len(json.dumps(message, separators=(",", ":"))))
        for symbol in message.get("versions", ()):
            self.seen[symbol].append(time.monotonic())
        return message


def serve(server: ServerProcess, rate: int, symbols: list[str]) -> None:
    """Half a minute of one client's life."""
    gone, *others = symbols
    with slow_client(server, rate, ",".join(symbols)) as (client, link):
        while len(client.quotes) < len(symbols):
            client.receive()
        watching = Watching(server, client, link, symbols)
        # The socket was given much before the server knew how slow its client is.
        watching.read_until(time.monotonic() + 32_000 / rate)
        start, watch = time.monotonic(), Stopwatch(server.process.pid)
        for number in range(6):
            assert watching.ask("pong", "ping", id=number)["id"] == number
            watching.read_until(start + number + 1)
        check_ages(watching.seen, rate, watch.waited)
        assert watching.ask("ack", "unsubscribe", symbols=[gone])["symbols"] == [gone]
        while gone in client.quotes:
            client.receive()
        assert watching.ask("ack", "throttle", interval="2s")["interval"] == 2.0
        assert watching.ask("ack", "unsubscribe", symbols=["*"])["symbols"] == ["*"]
        while client.quotes:
            client.receive()
        assert client.is_answered()
        assert set(others) < set(client.versions)


def check_ages(seen: dict[str, list[float]], rate: int, waited: float) -> None:
    """No symbol waits for longer than three times what all of them take together. `waited`: the seconds
    in which other programs had the processors.
    """
    now = time.monotonic()
    all_of_them = len(seen) * 450 / rate
    for symbol, moments in seen.items():
        ages = [
            later - earlier for earlier, later in zip(moments, [*moments[1:], now], strict=True)
        ]
        assert max(ages) < 3 * all_of_them + 3 + waited, (rate, symbol, max(ages))
