"""What one update costs per subscriber where sockets cost nothing: the fan-out's own code.

The real hub, topic, flusher and outboxes; only each connection's socket is replaced by a sink that
takes everything. What remains per subscriber is one list append and one call of `send`.
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
from server.quotes.quote import Trade

SYMBOL = "AAPL"


class Sink:
    """A socket that takes everything at once and keeps nothing."""

    def send(self, data: bytes) -> int:
        """How much was taken: all."""
        return len(data)


class BlockCounter(Sink):
    """Sinks of which the first that is written to counts the memory blocks alive at that moment."""

    def __init__(self) -> None:
        self.blocks = 0

    def send(self, data: bytes) -> int:
        """As above."""
        self.blocks = self.blocks or sys.getallocatedblocks()
        return len(data)


class Cost(NamedTuple):
    """Microseconds per subscriber and update; encodings per update; memory blocks per subscriber
    that a round holds before its write, and that it leaves behind.
    """

    microseconds: float
    encodings: float
    held: float
    kept: float


def run_hotpath(options: argparse.Namespace) -> bool:
    """Measure and print; False if anything was encoded more than once an update."""
    subscribers, updates = options.subscribers, options.updates
    costs = {n: trio.run(measure, subscribers, updates, n) for n in (1, ROUND_TRADES)}
    print(f"{subscribers} subscribers of one symbol, {updates} updates\n")
    print("updates   µs per subscriber   encodings    blocks held    blocks left")
    print("a round          and update  per update   a subscriber   a subscriber")
    for per_round, cost in costs.items():
        print(f"{per_round:>7}{cost.microseconds:>20.3f}{cost.encodings:>12.2f}"
              f"{cost.held:>15.2f}{cost.kept:>15.2f}")  # fmt: skip
    return all(cost.encodings == 1 for cost in costs.values())


async def measure(subscribers: int, updates: int, per_round: int) -> Cost:
    """Publish `updates` in rounds of `per_round` to as many `subscribers`."""
    rounds = max(1, updates // per_round)
    counter = BlockCounter()
    async with open_fanout(subscribers, counter) as fanout:
        await fanout.publish(per_round)  # what is made on first use is made
        gc.collect()
        before, counter.blocks = sys.getallocatedblocks(), 0
        await fanout.publish(per_round)
        after = sys.getallocatedblocks()
    async with open_fanout(subscribers, Sink()) as fanout:
        await fanout.publish(per_round)
        encoded = fanout.hub.stats.updates_encoded
        gc.collect()
        gc.freeze()  # as the server does once it has started
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
        """Add a connection. A sink has all of a socket that an outbox uses while it is not full."""
        self.hub.subscribe(self.hub.attach(cast("Any", sink)), self._topic)

    async def publish(self, updates: int) -> None:
        """Send trades, each at another price, and wait until all sinks have them."""
        inbox = self._topic.inbox
        assert inbox is not None, "the topic has subscribers, so it is active"
        stats = self.hub.stats
        expected = stats.messages_sent + updates * len(self._topic.subscribers)
        for number in range(updates):
            price = round(self._topic.quote.current_price + 0.01 * (number + 1), 2)
            now = time_ns() // 1000
            assert inbox.offer(Trade(SYMBOL, price, 100, now, now))
        while True:  # an event in the sinks would be part of what is measured
            await trio.lowlevel.checkpoint()
            if stats.messages_sent >= expected:
                return


@asynccontextmanager
async def open_fanout(subscribers: int, sink: Sink) -> AsyncIterator[Fanout]:
    """A hub with as many connections, all of which write to `sink`."""
    hub = Hub([Instrument(symbol=SYMBOL, name="Apple Inc.", base_price=175.5)])
    async with trio.open_nursery() as nursery:
        await nursery.start(hub.run)
        fanout = Fanout(hub)
        for _ in range(subscribers):
            fanout.subscribe(sink)
        yield fanout
        nursery.cancel_scope.cancel()
