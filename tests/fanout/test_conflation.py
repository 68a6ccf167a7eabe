"""When the machine cannot keep up, symbols are published less often for all, and nothing is lost."""

from functools import partial
from typing import cast

import trio

from server.app.publishing import HubExchange
from server.fanout.broadcaster import give, run_broadcaster
from server.fanout.hub import Hub
from server.gateway.directory import Directory
from server.ops.overload import CALM_CHECKS, LONGEST_INTERVAL, OVER_CHECKS, OverloadControl
from server.quotes.update import Trade
from tests.fanout.peer import Peer, instruments, trade


def test_interval_grows_only_while_overloaded_and_shrinks_when_calm():
    """Two checks beyond a limit double it up to the longest; a row of calm checks halves it down to
    none.
    """
    control = OverloadControl()
    assert control.look(lag=0.5) == 0.0
    assert control.look() == 0.0
    for _ in range(20):
        assert control.look(busy=0.9) == 0.0
    grown = [control.look(busy=0.99) for _ in range(OVER_CHECKS * 8)]
    assert sorted(set(grown)) == [0.0, 0.25, 0.5, 1.0, 2.0, LONGEST_INTERVAL]
    assert [control.look(lag=0.08) for _ in range(50)] == [LONGEST_INTERVAL] * 50
    shrunk = [control.look(lag=0.01, burst=0.01) for _ in range(CALM_CHECKS * 6)]
    assert sorted(set(shrunk), reverse=True) == [4.0, 2.0, 1.0, 0.5, 0.25, 0.0]
    assert shrunk[-1] == 0.0


async def test_conflated_topics_publish_once_an_interval(autojump_clock, nursery):
    """All clients get full current quotes at the same pace, are told so, and miss no version."""
    hub = Hub(instruments("AAPL", "MSFT"))
    await nursery.start(hub.run)
    peer = Peer(hub)
    peer.subscribe("AAPL", "MSFT")
    send, receive = trio.open_memory_channel[Trade](1000)
    nursery.start_soon(partial(run_broadcaster, hub, receive, lossless=False))
    nursery.start_soon(peer.read_on)

    async def trade_on(count: int) -> None:
        for number in range(count):
            await send.send(trade("AAPL", 100 + number % 50 + trio.current_time() / 1000))
            await trio.sleep(0.01)

    hub.set_conflation(0.5)
    await trade_on(400)
    await trio.testing.wait_all_tasks_blocked()
    updates = [message for message in peer.messages if "AAPL" in message.get("versions", {})]
    assert 7 <= len(updates) <= 12
    assert {message["operations"][0]["op"] for message in updates[2:-1]} == {"add"}
    assert hub.topics["AAPL"].version > 350
    told = [message for message in peer.messages if message["type"] == "status"]
    assert [message["interval"] for message in told] == [0.5]

    hub.set_conflation(0.0)
    await trade_on(50)
    await trio.sleep(1)
    await trio.testing.wait_all_tasks_blocked()
    assert peer.document["quotes"] == peer.truth()
    assert peer.messages[-1]["operations"][0]["op"] == "replace"
    assert [m["interval"] for m in peer.messages if m["type"] == "status"] == [0.5, 0.0]
    peer.close()


async def test_overload_does_not_hide_that_prices_flow(hub, connect):
    """Its message says so, too, and since when: here since the feed has started."""
    peer = connect()
    hub.set_conflation(0.5)
    await peer.read()
    (message,) = peer.messages
    expected = {"type": "status", "status": "live", "reason": "feed_started", "interval": 0.5}
    assert message == message | expected


async def test_publisher_is_answered_while_another_feed_moves_its_symbols(autojump_clock, nursery):
    """In each interval every inbox is empty for a moment, but never all of them at one time."""
    symbols = [f"S{number}" for number in range(20)]
    hub = Hub(instruments(*symbols))
    await nursery.start(hub.run)
    peer = Peer(hub)
    peer.subscribe(*symbols)
    nursery.start_soon(peer.read_on)

    async def trade_on(symbol: str, begin: float) -> None:
        await trio.sleep(begin)
        while True:
            give(hub, hub.topics[symbol], trade(symbol, 100.0))
            await trio.sleep(0.05)

    hub.set_conflation(1.0)
    for number, symbol in enumerate(symbols):
        nursery.start_soon(trade_on, symbol, number * 0.051)
    await trio.sleep(3)
    exchange = HubExchange(hub, cast("Directory", None), lists_symbols=False)
    with trio.fail_after(3):
        await exchange.published(symbols)
    peer.close()
