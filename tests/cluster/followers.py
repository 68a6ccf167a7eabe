"""Clients that come back as the protocol asks them to, all in one thread; they note what is wrong."""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Protocol

import msgspec
import trio
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.trio.client import ClientConnection, connect

from bench.services import Redis
from server.quotes.snapshot import LiveSnapshot
from tests.cluster.checked import CheckedQuotes, Seen
from tests.gateway.wire import new_user
from tests.patient import PatientTrioConnection
from tests.processes import eventually, make_token

CONNECT_TIMEOUT = 10.0
"""Seconds: a first packet that a leaving worker dropped comes again after one."""

SERVED_TIMEOUT = 40.0
"""Seconds in which a busy machine serves all of them, also after each has waited for five."""

RETRY_INTERVAL = 0.1
"""Seconds until a client that could not connect tries again. That is a fault."""


class Front(Protocol):
    """A server, or a load balancer in front of several."""

    def url(self, symbols: str | None = None, token: str | None = None) -> str:
        """Return the address to connect to."""


class Follower(CheckedQuotes):
    """Connects and reads. Sent away, it comes back after the requested time with its position.

    `faults` are to be none: any refusal, any end but 1001 after `reconnect`, any message that is not as
    promised. `recoveries`: seconds from the moment at which it might come back to its first message.
    """

    def __init__(self, host: Front, symbols: str, seen: Seen) -> None:
        super().__init__(seen)
        self._url = host.url(symbols, make_token(new_user()))
        self._size = 1 if symbols == "*" else len(symbols.split(","))
        self.faults: list[str] = []
        self.recoveries: list[float] = []
        self.visits = 0
        self.messages = 0

    @property
    def served(self) -> bool:
        """Whether it has all its symbols."""
        return len(self.held) >= self._size

    async def run(self) -> None:
        """Run until cancelled."""
        due = 0.0
        while True:
            try:
                async with connect(
                    self._resuming(),
                    open_timeout=CONNECT_TIMEOUT,
                    ping_interval=None,
                    create_connection=PatientTrioConnection,
                ) as connection:
                    wait = await self._read(connection, due)
            except (OSError, InvalidHandshake, TimeoutError, ConnectionClosed) as error:
                self.faults.append(f"cannot connect: {error!r}")
                wait = RETRY_INTERVAL
            due = time.monotonic() + wait
            await trio.sleep(wait)

    def _resuming(self) -> str:
        epoch = max(self.epochs, default="")  # as many digits each: the newest
        held = [f"{symbol}={it[1]}" for symbol, it in self.held.items() if it[0] == epoch]
        return f"{self._url}&resume={epoch}:{','.join(held)}" if held else self._url

    async def _read(self, connection: ClientConnection, due: float) -> float:
        """Read until the connection ends. Return the seconds to stay away."""
        self.visits += 1
        wait: float | None = None
        try:
            while True:
                message = json.loads(await connection.recv())
                if due:
                    self.recoveries.append(time.monotonic() - due)
                    due = 0.0
                self.messages += 1
                if message["type"] == "quotes_patch":
                    self.apply(message)
                elif message["type"] == "reconnect":
                    wait = message["after_ms"] / 1000
        except AssertionError as error:
            self.faults.append(str(error))
        except ConnectionClosed:
            if connection.close_code == 1001 and wait is not None:
                return wait
        self.faults.append(f"closed with {connection.close_code}, to come back after {wait}")
        self.forget_versions()
        return wait or RETRY_INTERVAL


@contextmanager
def followers(
    host: Front, size: int, symbols: str = "AAPL", seen: Seen | None = None
) -> Iterator[list[Follower]]:
    """Run `size` clients. Enter once all of them are served."""
    seen = {} if seen is None else seen
    crowd = [Follower(host, symbols, seen) for _ in range(size)]
    over = threading.Event()
    thread = threading.Thread(target=trio.run, args=(_run, crowd, over))
    thread.start()
    try:
        eventually(lambda: all(follower.served for follower in crowd), SERVED_TIMEOUT)
        yield crowd
    finally:
        over.set()
        thread.join()


async def _run(crowd: Sequence[Follower], over: threading.Event) -> None:
    async with trio.open_nursery() as running:
        for follower in crowd:
            running.start_soon(follower.run)
        await trio.to_thread.run_sync(over.wait)
        running.cancel_scope.cancel()


def faults(crowd: Sequence[Follower]) -> list[str]:
    """Return the faults of all of them."""
    return [fault for follower in crowd for fault in follower.faults]


def still_read(crowd: Sequence[Follower]) -> None:
    """Wait until each has received more messages."""
    before = [follower.messages for follower in crowd]
    eventually(
        lambda: all(f.messages > n + 3 for f, n in zip(crowd, before, strict=True)), SERVED_TIMEOUT
    )


def converge(redis: Redis, crowd: Sequence[Follower], seen: Seen) -> None:
    """Wait until each has what the leader has published, or what came of it, and check that this is
    what the leader published.
    """
    symbols = sorted({symbol for follower in crowd for symbol in follower.held})
    meta, *values = redis.command("HMGET", "quotestream:quotes", "meta", *symbols).splitlines()
    epoch = str(json.loads(meta)["epoch"])
    published = [msgspec.json.decode(value, type=LiveSnapshot) for value in values]
    eventually(
        lambda: all(
            follower.held[each.symbol] >= (epoch, each.version)
            for follower in crowd
            for each in published
        ),
        SERVED_TIMEOUT,
    )
    for each in published:
        quote = seen[epoch, each.symbol, each.version]
        assert (quote["current_price"], quote["volume"]) == (each.last_quote, each.volume)


def report(what: str, crowd: Sequence[Follower]) -> None:
    """Print the time until clients that were sent away were served (`pytest -s` shows it)."""
    recoveries = sorted(each for follower in crowd for each in follower.recoveries)
    print(
        f"\n{what}: {len(recoveries)} of {len(crowd)} clients sent away; served again after"
        f" {median(recoveries):.3f} s, the last after {recoveries[-1]:.3f} s"
    )
