"""Bars over a connection: the open one at most once a second, each final one once, then `bars_end`."""

from typing import Any

import pytest
import trio
import trio.lowlevel

from server.fanout.bar_topic import OWED_BARS
from server.fanout.bars import BarsUnavailable
from server.fanout.hub import Hub
from server.history.bar import MinuteBar
from server.history.minutes import GRACE_US
from server.quotes.instrument import Instrument
from server.quotes.snapshot import opening_snapshot
from server.quotes.traded import MINUTE_US
from server.quotes.update import Trade, Update
from tests.fanout.peer import Peer
from tests.late import late_trade

MONDAY = 29_399_040
"""A minute in which a day and a week begin: 2025-11-24T00:00Z."""

GRACE = GRACE_US / 1e6


class Clock:
    """The wall clock, which goes on with trio's."""

    def __init__(self, hub: Hub, minute: int = MONDAY) -> None:
        self.hub = hub
        self.start = minute * MINUTE_US - round(trio.current_time() * 1e6)
        hub.bars.now_us = self.now_us
        hub.bars.close(minute)

    def now_us(self) -> int:
        """Return the time in microseconds."""
        return self.start + round(trio.current_time() * 1e6)

    async def reach(self, minute: int, second: float) -> None:
        """Sleep until a time after MONDAY."""
        wanted = (MONDAY + minute) * MINUTE_US + round(second * 1e6)
        await trio.sleep((wanted - self.now_us()) / 1e6)

    def trade(self, price: float, symbol: str = "AAPL", minute: int | None = None) -> None:
        """Trade 10 shares now, or late at the beginning of an earlier minute."""
        now = self.now_us()
        update: Update = Trade(symbol, price, 10, now, now)
        if minute is not None:
            update = late_trade(symbol, price, 10, (MONDAY + minute) * MINUTE_US, now)
        self.hub.topics[symbol].publish(update)


@pytest.fixture
async def clock(hub):
    return Clock(hub)


def watch(peer: Peer, *symbols: str, timeframe: Any = "1m") -> list[Any]:
    """Subscribe to bars."""
    topics = [peer.hub.bars.topic(symbol, timeframe) for symbol in symbols]
    peer.hub.bars.subscribe(peer.outbox, topics)
    return topics


async def read(peer: Peer) -> list[str]:
    """Return a short form of each message about bars that has come."""
    await peer.read()
    taken, peer.messages = peer.messages, []
    return [short(each) for each in taken if each["type"].startswith("bar")]


def short(message: dict[str, Any]) -> str:
    """Return a message in a few letters: times are hours and minutes."""
    if message["type"] == "bars_end":
        return f"end {message['timeframe']} {message['t'][11:16]}"
    if message["type"] == "bars_missed":
        return f"missed {message['symbol']}"
    bar = message["bar"]
    state = f"final{bar['rev'] or ''}" if bar["final"] else "open"
    return f"{message['symbol']} {bar['t'][11:16]} {state} {bar['o']:g}-{bar['c']:g} n={bar['n']}"


async def test_message(autojump_clock, clock, connect):
    """Has all fields of the contract."""
    peer = connect()
    clock.trade(100.5)
    watch(peer, "AAPL")
    await peer.read()
    assert peer.messages == [
        {
            "type": "bar",
            "symbol": "AAPL",
            "timeframe": "1m",
            "bar": {
                "t": "2025-11-24T00:00:00Z",
                "o": 100.5,
                "h": 100.5,
                "l": 100.5,
                "c": 100.5,
                "v": 10,
                "n": 1,
                "vw": 100.5,
                "final": False,
                "rev": 0,
            },
        }
    ]


async def test_life_of_a_bar(autojump_clock, clock, connect):
    """The present one comes at once, then at most one a second, the final one, and `bars_end`."""
    peer = connect()
    await clock.reach(0, 10)
    clock.trade(100)
    watch(peer, "AAPL")
    assert await read(peer) == ["AAPL 00:00 open 100-100 n=1"]
    for _ in range(25):
        clock.trade(101)
        await trio.sleep(0.1)
    await clock.reach(1, 0)
    assert len(await read(peer)) == 3
    clock.trade(102, minute=0)
    await clock.reach(1, 1.5)
    clock.trade(103)
    assert await read(peer) == ["AAPL 00:00 open 102-101 n=27"]
    await clock.reach(1, GRACE + 1.5)
    assert await read(peer) == [
        "AAPL 00:00 final 102-101 n=27",
        "end 1m 00:00",
        "AAPL 00:01 open 103-103 n=1",
    ]


async def test_revision(autojump_clock, clock, connect):
    """A late trade makes the next revision, in its minute."""
    peer = connect()
    watch(peer, "AAPL")
    await clock.reach(0, 5)
    clock.trade(100)
    await clock.reach(1, 10)
    await read(peer)
    clock.trade(99, minute=0)
    clock.trade(98, minute=0)
    await trio.sleep(1)
    assert await read(peer) == ["AAPL 00:00 final2 99-100 n=3"]


async def test_every_minute_ends(autojump_clock, clock, connect):
    """Also one without a trade. A client without bars hears nothing of it."""
    peer, other = connect(), connect("AAPL")
    watch(peer, "AAPL")
    await clock.reach(2, GRACE + 1.5)
    assert await read(peer) == ["end 1m 00:00", "end 1m 00:01"]
    assert await read(other) == []


async def test_unsubscribe(autojump_clock, clock, connect):
    """Nothing more comes of these bars, and of `bars_end` after the last."""
    peer = connect()
    apple, microsoft = watch(peer, "AAPL", "MSFT")
    clock.trade(100)
    clock.trade(50, "MSFT")
    clock.hub.bars.unsubscribe(peer.outbox, [microsoft])
    await clock.reach(1, GRACE + 1.5)
    assert [each for each in await read(peer) if "open" not in each] == [
        "AAPL 00:00 final 100-100 n=1",
        "end 1m 00:00",
    ]
    clock.hub.bars.unsubscribe(peer.outbox, [apple])
    await clock.reach(2, GRACE + 1.5)
    assert await read(peer) == []
    assert "AAPL" not in clock.hub.bars


@pytest.mark.parametrize(("timeframe", "minutes"), [("5m", 5), ("30m", 30), ("1h", 60)])
async def test_longer_bars(autojump_clock, clock, connect, timeframe, minutes):
    """Are final when their last minute is, with the trades of all their minutes."""
    peer = connect()
    watch(peer, "AAPL", timeframe=timeframe)
    for minute in range(minutes):
        await clock.reach(minute, 5)
        clock.trade(100 + minute)
    await clock.reach(minutes - 1, 59)
    received = await read(peer)
    assert received[-1] == f"AAPL 00:00 open 100-{99 + minutes} n={minutes}"
    assert not any("final" in each or "end" in each for each in received)
    await clock.reach(minutes, GRACE + 1.5)
    assert await read(peer) == [
        f"AAPL 00:00 final 100-{99 + minutes} n={minutes}",
        f"end {timeframe} 00:00",
    ]


async def test_days_and_weeks(autojump_clock, clock, connect):
    """A day and a week go on over the minutes that memory has let go."""
    peer = connect()
    watch(peer, "AAPL", timeframe="1d")
    watch(peer, "AAPL", timeframe="1w")
    for minute in range(30):
        await clock.reach(minute, 5)
        clock.trade(100 + minute)
        clock.hub.bars.minutes.written(clock.hub.bars.minutes.unwritten(100))
    await clock.reach(29, 59)
    assert (await read(peer))[-2:] == ["AAPL 00:00 open 100-129 n=30"] * 2


async def test_slow_client_gets_all_final_bars(autojump_clock, clock, connect):
    """While its socket is full, it is owed each final bar, and the newest `bars_end` behind them."""
    peer = connect("MSFT")
    watch(peer, "AAPL")
    for price in range(200):
        clock.trade(50 + price / 100, "MSFT")
        await trio.lowlevel.checkpoint()
    assert peer.outbox.blocked
    for minute in range(5):
        await clock.reach(minute, 5)
        clock.trade(100 + minute)
        # It takes something now and then.
        peer.receive(100)
    await clock.reach(5, 10)
    received = [each for each in await read(peer) if "open" not in each]
    assert received[-6:] == [
        *(f"AAPL 00:0{minute} final {100 + minute}-{100 + minute} n=1" for minute in range(5)),
        "end 1m 00:04",
    ]
    assert len(received) == len(set(received))


async def test_client_that_is_too_slow_is_told(autojump_clock, clock, connect):
    """It is owed a bounded number of bars. Behind that, it has to ask for them."""
    peer = connect("MSFT")
    watch(peer, "AAPL")
    peer.outbox.set_throttle(60)
    # Nobody releases what is held.
    for minute in range(OWED_BARS + 5):
        await clock.reach(minute, 5)
        clock.trade(100 + minute)
    await clock.reach(OWED_BARS + 5, 10)
    peer.outbox.release()
    received = await read(peer)
    finals = [each for each in received if "final" in each]
    assert len(finals) == OWED_BARS
    assert "missed AAPL" in received
    assert received[-1].startswith("end")


async def test_late_trades_of_many_old_bars_are_bounded(autojump_clock, clock, connect):
    """A slow client is owed no more of them than of new ones. It is told to ask for the others."""
    peer, quick = connect("MSFT"), connect()
    for each in (peer, quick):
        watch(each, "AAPL")
    first = OWED_BARS + 40
    for minute in range(first, first + 2):
        await clock.reach(minute, 5)
        clock.trade(100)
    await clock.reach(first + 2, 10)
    await read(peer)
    peer.outbox.set_throttle(60)
    revised = list[str]()
    for minute in range(first):
        clock.trade(90, minute=minute)
        await trio.sleep(1)
        revised += [each for each in await read(quick) if "final1" in each]
    assert len(revised) == len(set(revised)) == first
    assert peer.outbox.owed <= OWED_BARS + 2
    peer.outbox.release()
    received = await read(peer)
    assert received.count("missed AAPL") == 1
    assert len([each for each in received if "final1" in each]) < OWED_BARS


async def test_unsubscribed_client_gets_no_late_trade(autojump_clock, clock, connect):
    """It waited for its throttle, and was older than all bars that a client is owed."""
    peer = connect("MSFT")
    (topic,) = watch(peer, "AAPL")
    for minute in range(1, OWED_BARS + 2):
        await clock.reach(minute, 5)
        clock.trade(100)
    await clock.reach(OWED_BARS + 2, 10)
    await read(peer)
    peer.outbox.set_throttle(60)
    clock.trade(90, minute=0)
    await trio.sleep(2)
    clock.hub.bars.unsubscribe(peer.outbox, [topic])
    peer.outbox.release()
    assert await read(peer) == []


async def test_renamed_symbol_goes_on(autojump_clock, clock, connect):
    """The bars and their subscribers go to the new symbol."""
    peer = connect()
    watch(peer, "AAPL")
    clock.trade(100)
    await trio.sleep(1)
    await read(peer)
    clock.hub.rename("AAPL", opening_snapshot(Instrument(symbol="APPL", name="A", base_price=1.0)))
    clock.trade(101, "APPL")
    await clock.reach(1, GRACE + 1.5)
    assert await read(peer) == [
        "APPL 00:00 open 100-101 n=2",
        "APPL 00:00 final 100-101 n=2",
        "end 1m 00:00",
    ]


async def test_delisted_symbol_ends(autojump_clock, clock, connect):
    """Nobody watches its bars any more."""
    peer = connect()
    (topic,) = watch(peer, "AAPL")
    clock.hub.delist(["AAPL"])
    assert topic.over
    assert "AAPL" not in clock.hub.bars


async def test_bars_count_as_watching(clock, connect):
    """The simulator moves only symbols that are watched."""
    peer = connect()
    assert not clock.hub.is_watched("AAPL")
    (topic,) = watch(peer, "AAPL")
    assert clock.hub.is_watched("AAPL")
    assert [quote.symbol for quote in clock.hub.watched_quotes()] == ["AAPL"]
    clock.hub.bars.unsubscribe(peer.outbox, [topic])
    assert not clock.hub.is_watched("AAPL")


async def test_store_has_the_beginning_of_an_hour(autojump_clock, clock, connect):
    """The store is asked once it answers, for the minutes before those in memory."""
    asked = list[Any]()

    async def load(symbol: str, start: int, end: int, without: Any) -> MinuteBar | None:
        asked.append((symbol, start - MONDAY, end - MONDAY, list(without)))
        if len(asked) == 1:
            raise BarsUnavailable
        us = start * MINUTE_US
        return MinuteBar(symbol, start, 90, 95, 85, 91, 70, 7, 6300, us, us + 1, True, 0)

    clock.hub.bars.load = load
    await clock.reach(20, 5)
    clock.hub.bars.minutes.forget(MONDAY + 19)
    clock.trade(100)
    peer = connect()
    watch(peer, "AAPL", timeframe="1h")
    assert await read(peer) == []
    await trio.sleep(2)
    assert (await read(peer))[0] == "AAPL 00:00 open 90-100 n=8"
    assert asked == [("AAPL", 0, 19, [])] * 2


async def test_replay_is_its_own_clock(autojump_clock, hub, connect):
    """However fast it is: minutes end when its trades are later, and at its end."""
    hub.bars.replaying = True
    peer = connect()
    watch(peer, "AAPL", "MSFT")
    for minute in range(3):
        for symbol in ("AAPL", "MSFT"):
            time_us = (MONDAY + minute) * MINUTE_US + 5_000_000
            hub.topics[symbol].publish(Trade(symbol, 100, 10, time_us, 0))
    await trio.sleep(1)
    received = await read(peer)
    assert received[:6] == [
        *(f"{symbol} 00:00 final 100-100 n=1" for symbol in ("AAPL", "MSFT")),
        "end 1m 00:00",
        *(f"{symbol} 00:01 final 100-100 n=1" for symbol in ("AAPL", "MSFT")),
        "end 1m 00:01",
    ]
    hub.bars.ended = True
    await trio.sleep(1)
    assert (await read(peer))[-1] == "end 1m 00:02"
