"""Simulates prices, as the "price oscillation" of the Go service that this server replaces.

In each interval, a random subset of the watched symbols moves, at least one. A new price is within one
percent of the base price, in whole cents and at least a dollar. The moves are spread over the
interval: all at its start would be one burst and then silence.
"""

from collections.abc import Callable, Iterator
from math import ceil, floor
from random import Random
from time import time_ns

import trio

from server.quotes.quote import Quote, Trade
from server.quotes.snapshot import LARGEST_PRICE

OSCILLATION = 0.01
"""Largest distance from the base price, as a share of it."""

LOWEST_CENTS = 100
"""The lowest simulated price, one dollar."""

HIGHEST_CENTS = int(LARGEST_PRICE) * 100
"""The highest simulated price: other instances accept no higher one."""

CATCH_UP = 1.0
"""Largest delay in seconds that the simulator makes up for. Without this limit, the whole delay after a
machine's sleep would be one burst. With a limit of zero, a late simulator would hide an overload.
"""

LARGEST_LOTS = 20
"""Most round lots of 100 shares in one trade."""


async def run_simulator(
    trades: trio.MemorySendChannel[Trade],
    watched: Callable[[], list[Quote]],
    is_watched: Callable[[str], bool],
    interval: float,
    random: Random,
) -> None:
    """Send trades until cancelled.

    Arguments:
        watched: returns the quotes that may move; called at the start of each interval.
        is_watched: returns whether a symbol may still move when its moment has come.
        interval: seconds.
        random: the source of every choice. The same seed gives the same choices.
    """
    start = trio.current_time()
    while True:
        for offset, quote in plan_interval(watched(), interval, random):
            await trio.sleep_until(start + offset)
            if not is_watched(quote.symbol):
                continue
            now = time_ns() // 1000
            size = 100 * random.randint(1, LARGEST_LOTS)
            await trades.send(Trade(quote.symbol, simulated_price(quote, random), size, now, now))
        start = max(start + interval, trio.current_time() - CATCH_UP)
        await trio.sleep_until(start)


def plan_interval(
    quotes: list[Quote], interval: float, random: Random
) -> Iterator[tuple[float, Quote]]:
    """Choose the quotes to move, each with its seconds from the interval's start, in time order."""
    if not quotes:
        return iter(())
    movers = random.sample(quotes, random.randint(1, len(quotes)))
    return zip(sorted(random.uniform(0, interval) for _ in movers), movers, strict=True)


def simulated_price(quote: Quote, random: Random) -> float:
    """Choose a price within OSCILLATION of the base price, and not the present one if possible."""
    base_cents = quote.base_price * 100
    low = max(LOWEST_CENTS, ceil(base_cents * (1 - OSCILLATION)))
    high = min(max(low, floor(base_cents * (1 + OSCILLATION))), HIGHEST_CENTS)
    present = round(quote.current_price * 100)
    if not low <= present <= high or low == high:
        return random.randint(low, high) / 100
    cents = random.randint(low, high - 1)
    return (cents + (cents >= present)) / 100
