"""Updates that wait when a symbol is renamed or split keep their order, and none is lost."""

from collections.abc import Callable

import pytest
import trio
import trio.testing

from server.fanout.broadcaster import run_broadcaster
from server.fanout.hub import Hub
from server.fanout.inbox import INBOX_TRADES
from server.pacing import wait_until
from server.quotes.adjustment import split
from server.quotes.update import Trade
from tests.fanout.peer import trade
from tests.fanout.test_listing import listed


def rename(hub: Hub) -> None:
    hub.rename("AAPL", listed("META"))


def rename_twice(hub: Hub) -> None:
    rename(hub)
    hub.rename("META", listed("MVRS"))


def split_once(hub: Hub) -> None:
    hub.relist([split(listed("AAPL"), "2:1", again=False)])


def split_twice(hub: Hub) -> None:
    split_once(hub)
    once = split(listed("AAPL"), "2:1", again=False)
    hub.relist([split(once, "5:1", again=False)])


CHANGES = [
    (rename, "META", 1),
    (rename_twice, "MVRS", 1),
    (split_once, "AAPL", 2),
    (split_twice, "AAPL", 10),
]


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize(("change", "symbol", "factor"), CHANGES)
async def test_waiting_trades_keep_their_order(
    hub, connect, cut, change: Callable[[Hub], None], symbol: str, factor: int
):
    """The task has the first trade in hand. A status may have begun a newer inbox. Other instances get
    every trade that comes behind a new name under that name.
    """
    hub.journal.open()
    peer = connect("AAPL")
    await trio.testing.wait_all_tasks_blocked()
    inbox = hub.topics["AAPL"].inbox
    for price in (101.0, 102.0, 103.0):
        inbox.offer(trade("AAPL", price))
    if cut:
        hub.set_status("stale", "feed_lost")
        hub.topics["AAPL"].inbox.offer(trade("AAPL", 110.0))
    change(hub)
    if symbol != "AAPL":
        hub.topics[symbol].inbox.offer(trade(symbol, 120.0))
    price = 110.0 if cut else 103.0
    last, count = (price, 3 + cut) if symbol == "AAPL" else (120.0, 4 + cut)
    await peer.read()
    quote = peer.document["quotes"][symbol]
    assert quote["current_price"] == last / factor
    assert quote["low"] == 101.0 / factor
    assert quote["volume"] == 100 * count * factor
    moves = hub.journal.take(100)
    assert [move.symbol for move in moves] == [symbol] * count
    assert [move.version for move in moves] == sorted({move.version for move in moves})


async def test_trade_that_waits_for_room_goes_to_the_new_symbol(hub, connect, nursery):
    """A feed that can wait has more trades of the old symbol than its inbox takes."""
    peer = connect("AAPL")
    await trio.testing.wait_all_tasks_blocked()
    send, receive = trio.open_memory_channel[Trade](INBOX_TRADES + 10)
    hub.set_conflation(5.0)
    for number in range(INBOX_TRADES + 2):
        send.send_nowait(trade("AAPL", 100.0 + number))
    send.close()
    topic = hub.topics["AAPL"]
    for _ in range(INBOX_TRADES):
        topic.inbox.offer(trade("AAPL", 99.0))
    async with trio.open_nursery() as feed:
        feed.start_soon(lambda: run_broadcaster(hub, receive, lossless=True))
        await wait_until(lambda: hub.stats.feed_waits > 0)
        hub.set_conflation(0.0)
        rename(hub)
    await peer.read()
    quote = peer.document["quotes"]["META"]
    assert quote["current_price"] == 100.0 + INBOX_TRADES + 1
    assert quote["volume"] == 100 * (2 * INBOX_TRADES + 2)


async def test_unwatched_symbol_publishes_what_waits_first(hub, connect):
    """Its last subscriber has just left. A trade of the new symbol comes behind those that wait."""
    peer = connect("AAPL")
    await trio.testing.wait_all_tasks_blocked()
    peer.unsubscribe("AAPL")
    hub.topics["AAPL"].inbox.offer(trade("AAPL", 101.0))
    rename(hub)
    send, receive = trio.open_memory_channel[Trade](1)
    send.send_nowait(trade("AAPL", 102.0))
    send.close()
    await run_broadcaster(hub, receive, lossless=True)
    quote = hub.topics["META"].quote
    assert (quote.current_price, quote.volume) == (102.0, 200)
