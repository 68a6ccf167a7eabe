"""Simulates prices, as the "price oscillation" of the Go service that this server replaces.

In each interval, a random subset of the watched symbols moves, at least one. A new price is in whole
ticks of its instrument, within one percent or one tick of the base price. The moves are spread over
the interval: all at its start would be one burst and then silence.
"""

from collections.abc import Callable, Iterator
from math import ceil, floor
from random import Random
from time import time_ns

import trio

from server.quotes.instrument import CENT_DECIMALS, SIGNED_TYPES
from server.quotes.quote import Quote
from server.quotes.snapshot import LARGEST_PRICE
from server.quotes.update import Trade

OSCILLATION = 0.01
"""Largest distance from the base price, as a share of it."""

LOWEST_PRICE = 1.0
"""The floor of the Go service. It holds for instruments that are quoted in cents, whose base price is
not below it and whose prices cannot be negative.
"""

CATCH_UP = 1.0
"""Largest delay in seconds that the simulator makes up for. Without this limit, the whole delay after a
machine's sleep would be one burst. With a limit of zero, a late simulator would hide an overload.
"""

LARGEST_LOTS = 20
"""Most round lots of 100 shares in one trade."""


async def run_simulator(  # noqa: PLR0913 (each is a part of the server that tests replace)
    trades: trio.MemorySendChannel[Trade],
    watched: Callable[[], list[Quote]],
    may_move: Callable[[str], bool],
    price_decimals: Callable[[str], int],
    interval: float,
    random: Random,
    *,
    present: Callable[[Quote], Quote] = lambda quote: quote,
) -> None:
    """Send trades until cancelled.

    Arguments:
        watched: returns the quotes that may move; called at the start of each interval.
        may_move: returns whether a symbol may still move when its moment has come.
        price_decimals: returns a symbol's tick precision.
        interval: seconds.
        random: the source of every choice. The same seed gives the same choices.
        present: returns a quote as it is at its moment. Its base price may be another one by then.
    """
    start = trio.current_time()
    while True:
        for offset, planned in plan_interval(watched(), interval, random):
            await trio.sleep_until(start + offset)
            quote = present(planned)
            # Read first: `may_move` may depend on the clock.
            now = time_ns() // 1000
            # The price is gone if another instrument took the symbol meanwhile.
            if quote.base_price is None or not may_move(quote.symbol):
                continue
            size = 100 * random.randint(1, LARGEST_LOTS)
            price = simulated_price(quote, price_decimals(quote.symbol), random)
            await trades.send(Trade(quote.symbol, price, size, now, now))
        start = max(start + interval, trio.current_time() - CATCH_UP)
        await trio.sleep_until(start)


def plan_interval(
    quotes: list[Quote], interval: float, random: Random
) -> Iterator[tuple[float, Quote]]:
    """Choose the quotes to move, each with its seconds from the interval's start, in time order.

    A quote without a price stays as it is: nobody knows what the instrument costs.
    """
    priced = [quote for quote in quotes if quote.base_price is not None]
    if not priced:
        return iter(())
    movers = random.sample(priced, random.randint(1, len(priced)))
    return zip(sorted(random.uniform(0, interval) for _ in movers), movers, strict=True)


def simulated_price(quote: Quote, decimals: int, random: Random) -> float:
    """Choose a price within OSCILLATION or one tick of the base price, and not the present one if
    possible. `decimals` is the tick precision.
    """
    scale: int = 10**decimals
    assert quote.base_price is not None
    assert quote.current_price is not None
    base = quote.base_price * scale
    reach = max(1.0, abs(base) * OSCILLATION)
    low = ceil(base - reach)
    if quote.type not in SIGNED_TYPES:
        in_cents = decimals == CENT_DECIMALS and quote.base_price >= LOWEST_PRICE
        low = max(round(LOWEST_PRICE * scale) if in_cents else 1, low)
    # Other instances accept no price above LARGEST_PRICE.
    high = min(max(low, floor(base + reach)), int(LARGEST_PRICE) * scale)
    present = round(quote.current_price * scale)
    if not low <= present <= high or low == high:
        return random.randint(low, high) / scale
    ticks = random.randint(low, high - 1)
    return (ticks + (ticks >= present)) / scale
