"""The cost of one update per subscriber in the fan-out's own code, without sockets.

Hub, topic, flusher and outboxes are real. Each connection's socket is replaced by a sink that accepts
all bytes. So the cost per subscriber is one list append and one call of `send`.
"""

import argparse
import gc
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter, time_ns
from typing import Any, NamedTuple, cast

import trio

from server.fanout.hub import Hub
from server.fanout.topic_task import ROUND_TRADES
from server.quotes.instrument import Instrument
from server.quotes.update import Trade

SYMBOL = "AAPL"


class Sink:
    """A socket that accepts all bytes at once and keeps none."""

    def send(self, data: bytes) -> int:
        """Return the number of accepted bytes: all."""
        return len(data)


class BlockCounter(Sink):
    """A sink that counts the live memory blocks at its first write."""

    def __init__(self) -> None:
        self.blocks = 0

    def send(self, data: bytes) -> int:
        """Return the number of accepted bytes: all."""
        self.blocks = self.blocks or sys.getallocatedblocks()
        return len(data)


class Cost(NamedTuple):
    """The cost of an update.

    Microseconds are per subscriber and update, encodings per update. Memory blocks are per subscriber:
    those that a round holds before its write, and those that remain after it.
    """

    microseconds: float
    encodings: float
    held: float
    kept: float


def run_hotpath(options: argparse.Namespace) -> bool:
    """Measure and print; False if an update was encoded more than once."""
    subscribers, updates = options.subscribers, options.updates
    costs = {n: trio.run(measure, subscribers, updates, n) for n in (1, ROUND_TRADES)}
    print(f"{subscribers} subscribers of one symbol, {updates} updates\n")
    print("updates   µs per subscriber   encodings    blocks held    blocks left")
    print("a round          and update  per update   a subscriber   a subscriber")
    for per_round, cost in costs.items():
        print(
            f"{per_round:>7}{cost.microseconds:>20.3f}{cost.encodings:>12.2f}"
            f"{cost.held:>15.2f}{cost.kept:>15.2f}"
        )
    return all(cost.encodings == 1 for cost in costs.values())


async def measure(subscribers: int, updates: int, per_round: int) -> Cost:
    """Publish `updates` in rounds of `per_round` to `subscribers` connections."""
    rounds = max(1, updates // per_round)
    counter = BlockCounter()
    async with open_fanout(subscribers, counter) as fanout:
        # The first round fills pools and caches.
        await fanout.publish(per_round)
        gc.collect()
        before, counter.blocks = sys.getallocatedblocks(), 0
        await fanout.publish(per_round)
        after = sys.getallocatedblocks()
    async with open_fanout(subscribers, Sink()) as fanout:
        await fanout.publish(per_round)
        encoded = fanout.hub.stats.updates_encoded
        gc.collect()
        # The server does so too once it has started.
        gc.freeze()
        start = perf_counter()
        for _ in range(rounds):
            await fanout.publish(per_round)
        seconds = perf_counter() - start
        encoded = fanout.hub.stats.updates_encoded - encoded
    done = rounds * per_round
    return Cost(
        seconds * 1e6 / done / subscribers,
        encoded / done,
        (counter.blocks - before) / subscribers,
        (after - before) / subscribers,
    )


class Fanout:
    """A running hub with one topic."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self._topic = hub.topics[SYMBOL]

    def subscribe(self, sink: Sink) -> None:
        """Add a connection. An open outbox uses only `send` of its socket, which a sink has."""
        self.hub.subscribe(self.hub.attach(cast("Any", sink)), self._topic)

    async def publish(self, updates: int) -> None:
        """Send trades, each at another price, and wait until all sinks have them."""
        inbox = self._topic.inbox
        assert inbox is not None, "the topic has subscribers, so it is active"
        stats = self.hub.stats
        expected = stats.messages_sent + updates * len(self._topic.subscribers)
        for number in range(updates):
            price = round((self._topic.quote.current_price or 0.0) + 0.01 * (number + 1), 2)
            now = time_ns() // 1000
            assert inbox.offer(Trade(SYMBOL, price, 100, now, now))
        # Polled, as an event in the sinks would add to the measured cost.
        while True:
            await trio.lowlevel.checkpoint()
            if stats.messages_sent >= expected:
                return


@asynccontextmanager
async def open_fanout(subscribers: int, sink: Sink) -> AsyncIterator[Fanout]:
    """Run a hub with `subscribers` connections, which all write to `sink`."""
    hub = Hub([Instrument(symbol=SYMBOL, name="Apple Inc.", base_price=175.5)])
    async with trio.open_nursery() as nursery:
        await nursery.start(hub.run)
        fanout = Fanout(hub)
        for _ in range(subscribers):
            fanout.subscribe(sink)
        yield fanout
        nursery.cancel_scope.cancel()
