"""Simulated prices: which symbols move, when, and to which price."""

from functools import partial
from random import Random

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from server.feeds.simulator import plan_interval, run_simulator, simulated_price
from server.quotes.instrument import CENT_DECIMALS, Instrument
from server.quotes.quote import Quote, opening_quote
from server.quotes.snapshot import LARGEST_PRICE
from server.quotes.update import Trade

INTERVAL = 4.0


def cents(_: str) -> int:
    return CENT_DECIMALS


def quotes(*base_prices: float) -> list[Quote]:
    """Return quotes at their base prices, named A, B, …"""
    return [
        opening_quote(Instrument(symbol=chr(65 + n), name="", base_price=price), 0)
        for n, price in enumerate(base_prices)
    ]


async def simulate(
    watched: list[Quote], seconds: float, seed: int = 1
) -> list[tuple[float, Trade]]:
    """Return all trades of a number of seconds, with their moments."""
    send, receive = trio.open_memory_channel[Trade](0)
    start = trio.current_time()
    moments: list[tuple[float, Trade]] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            run_simulator, send, lambda: watched, lambda _: True, cents, INTERVAL, Random(seed)
        )
        while trio.current_time() < start + seconds:
            with trio.move_on_at(start + seconds):
                trade = await receive.receive()
                moments.append((trio.current_time() - start, trade))
        nursery.cancel_scope.cancel()
    return moments


async def test_each_interval_moves_some_of_the_watched(autojump_clock):
    """Each interval moves at least one symbol, each at most once, and not always the same ones."""
    moments = await simulate(quotes(10, 20, 30), 400 * INTERVAL)
    movers: list[list[str]] = [[] for _ in range(400)]
    for moment, trade in moments:
        movers[int(moment / INTERVAL)].append(trade.symbol)
    assert all(1 <= len(symbols) == len(set(symbols)) <= 3 for symbols in movers)
    assert {len(symbols) for symbols in movers} == {1, 2, 3}
    assert {symbol for symbols in movers for symbol in symbols} == {"A", "B", "C"}


async def test_moments_are_spread_over_the_interval(autojump_clock):
    """Each tenth of the interval gets about a tenth of the moves."""
    moments = await simulate(quotes(10, 20, 30), 1000 * INTERVAL)
    tenths = [0] * 10
    for moment, _ in moments:
        tenths[int(moment % INTERVAL / INTERVAL * 10)] += 1
    assert all(0.07 < count / len(moments) < 0.13 for count in tenths)


async def test_same_seed_same_day(autojump_clock):
    """A seed makes prices, sizes and order repeatable; another seed makes others."""

    async def day(seed: int) -> list[tuple[str, float, float]]:
        moments = await simulate(quotes(10, 20, 30), 100, seed)
        return [(trade.symbol, trade.price, trade.size) for _, trade in moments]

    assert await day(1) == await day(1) != await day(2)


async def test_nothing_moves_that_nobody_watches(autojump_clock):
    """Without subscribers there are no trades. A later subscriber sees moves within two intervals."""
    watched: list[Quote] = []
    send, receive = trio.open_memory_channel[Trade](100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            run_simulator, send, lambda: watched, lambda _: True, cents, INTERVAL, Random(1)
        )
        await trio.sleep(10 * INTERVAL)
        assert receive.statistics().current_buffer_used == 0
        watched += quotes(10)
        with trio.fail_after(2 * INTERVAL):
            trade = await receive.receive()
        assert trade.symbol == "A"
        assert trade.size > 0
        assert trade.size % 100 == 0
        nursery.cancel_scope.cancel()


async def test_nothing_moves_that_is_left_during_an_interval(autojump_clock):
    """Symbols without subscribers at their moment do not move, the others do."""
    left: set[str] = set()
    send, receive = trio.open_memory_channel[Trade](0)
    watched = quotes(*[10.0] * 20)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            run_simulator,
            send,
            lambda: watched,
            lambda s: s not in left,
            cents,
            INTERVAL,
            Random(1),
        )
        first = await receive.receive()
        left |= {quote.symbol for quote in watched[::2]} - {first.symbol}
        moved = {(await receive.receive()).symbol for _ in range(100)}
        assert moved
        assert not moved & left
        nursery.cancel_scope.cancel()


async def test_nothing_moves_whose_price_is_gone_by_then(autojump_clock):
    """Another instrument may take a symbol during an interval."""
    send, receive = trio.open_memory_channel[Trade](0)
    one, other = quotes(10.0, 10.0)
    gone = msgspec.structs.replace(one, current_price=None, base_price=None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            partial(run_simulator, present=lambda each: gone if each is one else each),
            send,
            lambda: [one, other],
            lambda _: True,
            cents,
            INTERVAL,
            Random(1),
        )
        assert {(await receive.receive()).symbol for _ in range(10)} == {other.symbol}
        nursery.cancel_scope.cancel()


async def test_time_that_stood_still_is_not_made_up_for(autojump_clock):
    """After a machine's sleep of an hour, the moves of one interval come at once, and no more."""
    send, receive = trio.open_memory_channel[Trade](10_000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            run_simulator, send, lambda: quotes(10, 20), lambda _: True, cents, INTERVAL, Random(1)
        )
        await receive.receive()
        autojump_clock.jump(3600)
        await trio.sleep(INTERVAL)
        assert receive.statistics().current_buffer_used <= 3 * 2
        nursery.cancel_scope.cancel()


def opened(base: float, decimals: int) -> Quote:
    """Return the quote of an instrument before its first trade."""
    instrument = Instrument(symbol="A", name="", base_price=base, price_decimals=decimals)
    return opening_quote(instrument, 0)


@given(st.integers(1, 10**7), st.integers(0, 12), st.integers(0, 2**32))
def test_price_stays_near_its_base(ticks, decimals, seed):
    """Prices are within one percent or one tick, in whole ticks, above zero, and move if they can."""
    quote = opened(ticks / 10**decimals, decimals)
    price = simulated_price(quote, decimals, Random(seed))
    assert price > 0
    assert price == round(price, decimals)
    assert quote.base_price is not None
    reach = max(quote.base_price * 0.01, 10**-decimals)
    assert abs(price - quote.base_price) <= reach * (1 + 1e-6)
    if not (ticks == 100 and decimals == 2):  # a share of one dollar may only rise
        assert price != quote.current_price


@pytest.mark.parametrize("base", [-37.63, 0.0, 0.01])
def test_price_of_a_future_may_be_negative(base):
    """It stays within one percent or one tick of its base price, on either side of zero."""
    oil = Instrument(symbol="CLK0", name="", type="FUTURE", base_price=base)
    quote, random = opening_quote(oil, 0), Random(1)
    prices = {simulated_price(quote, 2, random) for _ in range(500)}
    reach = max(abs(base) * 0.01, 0.01) + 1e-9
    assert base - reach <= min(prices) < base < max(prices) <= base + reach


@pytest.mark.parametrize(
    ("base", "decimals", "lowest", "highest"),
    [
        (0.00001234, 8, 0.00001222, 0.00001246),  # SHIB: 1 % and 12 ticks
        (1.0842, 4, 1.0734, 1.095),  # EURUSD moves in pips
        (0.42, 2, 0.41, 0.43),  # one tick is more than 1 %
        (0.01, 2, 0.01, 0.02),  # nothing costs nothing
        (1.005, 2, 1.0, 1.01),  # a share above a dollar stays there
        (1.0, 2, 1.0, 1.01),
        (175.5, 2, 173.75, 177.25),
    ],
)
def test_range_of_a_price(base, decimals, lowest, highest):
    """The range is reached at both ends and never left."""
    quote, random = opened(base, decimals), Random(1)
    prices = {simulated_price(quote, decimals, random) for _ in range(5000)}
    assert prices <= {round(lowest + n * 10**-decimals, decimals) for n in range(10_000)}
    assert max(prices) == highest
    assert min(prices - {quote.current_price}) == min({lowest, highest} - {quote.current_price})


@pytest.mark.parametrize("count", [1, 2, 500])
def test_plan_is_in_time_order(count):
    """Moments are in order for any number of symbols."""
    plan = list(plan_interval(quotes(*[10.0] * count), INTERVAL, Random(1)))
    offsets = [offset for offset, _ in plan]
    assert offsets == sorted(offsets)
    assert 1 <= len(plan) <= count


def test_price_is_never_above_what_other_instances_take():
    """Prices stay in bounds, even with the largest base price."""
    quote = opening_quote(Instrument(symbol="X", name="X", base_price=LARGEST_PRICE), 0)
    assert max(simulated_price(quote, 2, Random(seed)) for seed in range(100)) <= LARGEST_PRICE


def test_quote_without_a_price_does_not_move():
    """The others do."""
    waiting = opening_quote(Instrument(symbol="NEW", name="", base_price=None))
    for seed in range(20):
        planned = list(plan_interval([waiting, opened(5.0, 2)], 1.0, Random(seed)))
        assert [quote.symbol for _, quote in planned] == [opened(5.0, 2).symbol]
    assert not list(plan_interval([waiting], 1.0, Random(1)))
