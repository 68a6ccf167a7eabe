"""Bars for clients of which the store has a part: late trades, and an instance that was away."""

from typing import Any

import pytest
import trio

from server.fanout.bars import BarsUnavailable
from server.history.bar import MinuteBar
from server.quotes.traded import MINUTE_US, Closing
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
