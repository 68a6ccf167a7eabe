"""Bars for clients of which the store has a part: late trades, and an instance that was away."""

from time import time_ns
from typing import Any

import pytest
import trio

from server.fanout.bars import BarsUnavailable
from server.history.bar import MinuteBar
from server.quotes.adjustment import begun_anew
from server.quotes.instrument import Instrument
from server.quotes.snapshot import opening_snapshot
from server.quotes.traded import MINUTE_US, Closing
from server.quotes.update import Trade
from tests.fanout.test_bars import MONDAY, Clock, read, watch


@pytest.fixture
async def clock(hub):
    return Clock(hub)


def stored(minute: int, count: int, rev: int = 0) -> MinuteBar:
    """Return a bar that the store has."""
    us = minute * MINUTE_US
    return MinuteBar("AAPL", minute, 90, 95, 85, 91, 10 * count, count, 900, us, us + 1, True, rev)


async def test_late_trade_while_the_store_is_asked(autojump_clock, clock, connect):
    """Its minute comes into memory meanwhile. It neither counts twice nor is it left out."""
    minutes = clock.hub.bars.minutes

    async def load(symbol: str, start: int, end: int, without: Any) -> MinuteBar | None:
        await trio.sleep(5)
        counts = {MONDAY + 2: 3, MONDAY + 4: 4}
        left = sum(counts[minute] for minute in counts if minute not in without)
        return stored(start, left) if left else None

    clock.hub.bars.load = load
    await clock.reach(20, 5)
    minutes.forget(MONDAY + 19)
    clock.trade(100)
    peer = connect()
    watch(peer, "AAPL", timeframe="1h")
    await trio.sleep(2)
    clock.trade(101, minute=2)
    minutes.restore([stored(MONDAY + 2, 3)], minutes.missing)
    await trio.sleep(20)
    assert [each.split()[-1] for each in await read(peer)] == ["n=9"]


async def test_instance_that_was_away_has_whole_bars(autojump_clock, clock, connect):
    """Another instance had the trades of some minutes meanwhile, and the store has them now."""
    minutes = clock.hub.bars.minutes

    async def load(symbol: str, start: int, end: int, without: Any) -> MinuteBar | None:
        return stored(start, 7)

    clock.hub.bars.load = load
    peer = connect()
    watch(peer, "AAPL", timeframe="1h")
    clock.trade(100)
    await clock.reach(10, 5)
    # The other one has written all before this minute.
    minutes.forget(MONDAY + 10)
    clock.trade(101)
    await clock.reach(20, 5)
    assert (await read(peer))[-1] == "AAPL 00:00 open 90-101 n=8"


async def test_open_bar_of_an_instance_that_was_away_becomes_final(autojump_clock, clock, connect):
    """The store has the rest of the minute."""
    minutes = clock.hub.bars.minutes

    async def load(symbol: str, start: int, end: int, without: Any) -> MinuteBar | None:
        return stored(start, 7)

    clock.hub.bars.load = load
    peer = connect()
    watch(peer, "AAPL")
    clock.trade(100)
    await trio.sleep(2)
    clock.hub.bars.follow(Closing(MONDAY + 10, MONDAY + 8), exactly=True)
    minutes.adopt("AAPL", ())
    clock.hub.bars.close(MONDAY + 10)
    await trio.sleep(2)
    assert "AAPL 00:00 final 90-91 n=7" in await read(peer)


@pytest.mark.parametrize("timeframe", ["1m", "5m"])
@pytest.mark.parametrize("heard", [True, False], ids=["heard", "missed"])
async def test_revision_that_another_instance_has_written(
    autojump_clock, clock, connect, timeframe, heard
):
    """This one has not told its clients of it, or missed it. The state that comes has the bar no more.
    Clients get what the store has.
    """
    minutes = clock.hub.bars.minutes

    async def load(symbol: str, start: int, end: int, without: Any) -> MinuteBar | None:
        return stored(start, 2, rev=1)

    clock.hub.bars.load = load
    peer = connect()
    watch(peer, "AAPL", timeframe=timeframe)
    clock.trade(100)
    await clock.reach(9, 5)
    assert "AAPL 00:00 final 100-100 n=1" in await read(peer)
    if heard:
        clock.trade(101, minute=0)
    # The other one keeps the last minutes only.
    clock.hub.bars.follow(Closing(MONDAY + 9, MONDAY + 6), exactly=False)
    minutes.adopt("AAPL", ())
    await trio.sleep(3)
    assert await read(peer) == ["AAPL 00:00 final1 90-91 n=2"]


async def test_bar_that_did_not_change_is_not_sent_again(autojump_clock, clock, connect):
    """This instance missed something. It compares what clients have with what the store has."""
    minutes, asked = clock.hub.bars.minutes, list[int]()
    told: MinuteBar | None = None

    async def load(symbol: str, start: int, end: int, without: Any) -> MinuteBar | None:
        asked.append(start)
        return told

    clock.hub.bars.load = load
    peer = connect()
    watch(peer, "AAPL")
    clock.trade(100)
    await clock.reach(9, 5)
    assert "AAPL 00:00 final 100-100 n=1" in await read(peer)
    told = minutes.bar("AAPL", MONDAY)
    late_client = connect()
    watch(late_client, "AAPL", timeframe="5m")
    await trio.sleep(2)
    await read(late_client)
    asked.clear()
    clock.hub.bars.follow(Closing(MONDAY + 9, MONDAY + 6), exactly=False)
    minutes.adopt("AAPL", ())
    await trio.sleep(3)
    assert MONDAY in asked
    assert await read(peer) == await read(late_client) == []


async def test_restored_bar_leaves_the_memory(autojump_clock, clock):
    """Without a cluster, no other instance has to hear of it first."""
    minutes = clock.hub.bars.minutes
    await clock.reach(20, 5)
    minutes.forget(MONDAY + 18)
    clock.trade(90, minute=2)
    minutes.restore([stored(MONDAY + 2, 3)], minutes.missing)
    minutes.written(minutes.unwritten(10))
    assert minutes.bar("AAPL", MONDAY + 2)
    await clock.reach(22, 5)
    assert minutes.bar("AAPL", MONDAY + 2) is None


async def test_late_trade_while_the_store_is_away(autojump_clock, clock, connect):
    """Memory has all minutes of the bar, and those of the bar before it."""

    async def load(symbol: str, start: int, end: int, without: Any) -> MinuteBar | None:
        raise BarsUnavailable

    clock.hub.bars.load = load
    peer = connect()
    watch(peer, "AAPL", timeframe="5m")
    for minute in range(10):
        await clock.reach(minute, 5)
        clock.trade(100 + minute)
    await clock.reach(9, 30)
    clock.trade(90, minute=5)
    await trio.sleep(2)
    assert (await read(peer))[-1] == "AAPL 00:05 open 90-109 n=6"
    await clock.reach(10, 5)
    assert (await read(peer))[-2:] == ["AAPL 00:05 final1 90-109 n=6", "end 5m 00:05"]


class SlowStore:
    """Has one trade of each bar, and answers once it is told to."""

    def __init__(self) -> None:
        self.answers = trio.Event()

    async def load(self, symbol: str, start: int, end: int, without: Any) -> MinuteBar | None:
        """Return the stored part of a bar."""
        await self.answers.wait()
        return stored(start, 1)


async def test_end_waits_for_a_bar_that_the_store_has(autojump_clock, clock, connect):
    """It comes behind the bar, and on time to a client that does not watch that bar."""
    store = SlowStore()
    clock.hub.bars.load = store.load
    await clock.reach(4, 5)
    clock.hub.bars.minutes.forget(MONDAY + 4)
    peer, other = connect(), connect()
    watch(peer, "AAPL", timeframe="5m")
    clock.hub.bars.minutes.whole_from = 0
    watch(other, "MSFT", timeframe="5m")
    clock.hub.bars.minutes.whole_from = MONDAY + 4
    clock.trade(100)
    await clock.reach(5, 5)
    assert await read(peer) == []
    assert await read(other) == ["end 5m 00:00"]
    store.answers.set()
    await trio.sleep(2)
    assert await read(peer) == ["AAPL 00:00 final 90-100 n=2", "end 5m 00:00"]
    await clock.reach(10, 5)
    assert await read(peer) == await read(other) == ["end 5m 00:05"]


async def test_newest_end_comes_behind_a_bar_that_took_long(autojump_clock, clock, connect):
    """Further bars have ended meanwhile. A throttled client does not get the earlier end any more."""
    store = SlowStore()
    clock.hub.bars.load = store.load
    await clock.reach(5, 5)
    peer = connect()
    watch(peer, "MSFT", timeframe="5m")
    peer.outbox.set_throttle(60)
    await clock.reach(10, 5)
    clock.hub.bars.minutes.forget(MONDAY + 11)
    watch(peer, "AAPL", timeframe="5m")
    await clock.reach(15, 5)
    peer.outbox.release()
    assert await read(peer) == []
    await clock.reach(20, 5)
    store.answers.set()
    await trio.sleep(2)
    peer.outbox.release()
    assert await read(peer) == ["AAPL 00:10 final 90-91 n=1", "end 5m 00:15"]


async def test_end_waits_for_the_minute_of_the_start(autojump_clock, clock, connect):
    """Its trades wait for what an earlier run wrote of that minute. The bar comes first."""
    minutes = clock.hub.bars.minutes
    clock.hub.bars.load = SlowStore().load
    minutes.whole_from = MONDAY + 1
    await clock.reach(0, 5)
    for symbol in ("AAPL", "MSFT"):
        clock.trade(100, symbol)
    peer, other = connect(), connect()
    watch(peer, "AAPL")
    watch(other, "MSFT")
    await clock.reach(1, 5)
    assert await read(peer) == []
    minutes.restore([stored(MONDAY, 3)], minutes.missing)
    await trio.sleep(2)
    assert await read(peer) == ["AAPL 00:00 final1 90-100 n=4", "end 1m 00:00"]
    assert await read(other) == ["MSFT 00:00 final1 100-100 n=1", "end 1m 00:00"]


async def test_end_waits_no_longer_for_an_unsubscribed_bar(autojump_clock, clock, connect):
    """The store never answers about it."""
    clock.hub.bars.load = SlowStore().load
    await clock.reach(4, 5)
    peer = connect()
    watch(peer, "MSFT", timeframe="5m")
    clock.hub.bars.minutes.forget(MONDAY + 4)
    (apple,) = watch(peer, "AAPL", timeframe="5m")
    await clock.reach(5, 5)
    assert await read(peer) == []
    clock.hub.bars.unsubscribe(peer.outbox, [apple])
    await trio.sleep(2)
    assert await read(peer) == ["end 5m 00:00"]


@pytest.mark.parametrize("timeframe", ["1m", "1d"])
async def test_symbol_that_another_instrument_gets(autojump_clock, clock, connect, timeframe):
    """Its bars begin anew, over the stream as in `GET /bars`. The store is asked for nothing before."""
    hub, asked = clock.hub, list[int]()

    async def load(symbol: str, start: int, end: int, without: Any) -> MinuteBar | None:
        asked.append(start)
        return None

    hub.bars.load = load
    peer = connect()
    await clock.reach(9, 5)
    clock.trade(100)
    await clock.reach(10, 5)
    clock.trade(101)
    watch(peer, "AAPL", timeframe=timeframe)
    await trio.sleep(2)
    hub.bars.minutes.forget(MONDAY + 9)
    await read(peer)
    asked.clear()
    hub.relist([begun_anew(Instrument(symbol="AAPL", name="A", base_price=5.0), clock.now_us())])
    # The new instrument is of the wall clock's time, and so are its trades.
    hub.topics["AAPL"].publish(Trade("AAPL", 6, 10, clock.now_us(), time_ns() // 1000))
    start = "00:10" if timeframe == "1m" else "00:00"
    await trio.sleep(2)
    assert (await read(peer))[-1] == f"AAPL {start} open 6-6 n=1"
    assert all(each >= MONDAY + 10 for each in asked)
    assert hub.bars.minutes.trades_of("AAPL")[0].high == 6


async def test_bar_of_which_nothing_is_left_comes_once_more(autojump_clock, clock, connect):
    """The instrument that has the symbol now has not traded yet."""
    peer = connect()
    watch(peer, "AAPL")
    clock.trade(100)
    await clock.reach(1, 0)
    await read(peer)
    clock.hub.relist(
        [begun_anew(Instrument(symbol="AAPL", name="A", base_price=5.0), MONDAY * MINUTE_US)]
    )
    await clock.reach(1, 5)
    received = await read(peer)
    assert [each.split()[2:] for each in received[:-1]] == [
        ["open", "100-100", "n=0"],
        ["final", "100-100", "n=0"],
    ]
    assert received[-1] == "end 1m 00:00"


@pytest.mark.parametrize("timeframe", ["1m", "1d"])
async def test_symbol_of_a_delisted_instrument(autojump_clock, clock, connect, timeframe):
    """The one that gets it takes its own bars along, and has none of the other's."""
    hub, peer = clock.hub, connect()
    for symbol, price in (("AAPL", 100), ("MSFT", 50)):
        clock.trade(price, symbol)
    await clock.reach(1, 5)
    clock.trade(51, "MSFT")
    hub.delist(["MSFT"])
    hub.rename("AAPL", opening_snapshot(Instrument(symbol="MSFT", name="A", base_price=1.0)))
    assert [each.close for each in hub.bars.minutes.trades_of("MSFT")] == [100]
    clock.trade(101, "MSFT")
    watch(peer, "MSFT", timeframe=timeframe)
    wanted = {"1m": "MSFT 00:01 open 101-101 n=1", "1d": "MSFT 00:00 open 100-101 n=2"}
    assert await read(peer) == [wanted[timeframe]]
    assert {each.symbol for each in hub.bars.minutes.unwritten(9)} == {"MSFT"}


async def test_long_bar_goes_on_in_the_minute_of_the_leaders_start(autojump_clock, clock, connect):
    """A follower has that minute, and takes it for one that the store has."""
    minutes, peer = clock.hub.bars.minutes, connect()

    async def load(symbol: str, start: int, end: int, without: Any) -> MinuteBar | None:
        return None

    clock.hub.bars.load = load
    clock.trade(100)
    minutes.whole_from = MONDAY + 1
    watch(peer, "AAPL", timeframe="5m")
    await clock.reach(0, 20)
    clock.trade(101)
    await clock.reach(0, 30)
    assert (await read(peer))[-1] == "AAPL 00:00 open 100-101 n=2"
    clock.trade(102)
    await clock.reach(1, 30)
    clock.trade(103)
    await clock.reach(5, 5)
    assert (await read(peer))[-2:] == ["AAPL 00:00 final 100-103 n=4", "end 5m 00:00"]
