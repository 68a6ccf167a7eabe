"""A new epoch begins with full quotes for all clients, and nothing of the old one follows."""

import re
from time import time_ns

import trio

from server.fanout.hub import Hub, new_epoch
from server.fanout.topic_task import ROUND_TRADES
from tests.fanout.peer import START_US, Peer, instruments, publish


async def test_full_quotes_tell_the_epoch(hub, connect):
    """Full quotes of one symbol or several name the epoch; updates and removals do not."""
    peer = connect("AAPL", "MSFT")
    connect("BRK.B")
    peer.subscribe("BRK.B")
    publish(hub, "AAPL", 101.0)
    peer.unsubscribe("MSFT")
    await peer.read()
    assert [message.get("epoch") for message in peer.messages] == [hub.epoch, hub.epoch, None, None]
    assert list(peer.messages[0]) == ["type", "ts", "versions", "operations", "epoch"]


async def test_a_new_epoch_begins_with_full_quotes_for_everyone(hub, connect):
    """Each client gets the quotes of its symbols once, the same bytes for all. An unwatched symbol
    is not encoded.
    """
    peers = [connect("AAPL"), connect("AAPL", "MSFT"), connect()]
    for peer in peers:
        await peer.read()
        peer.messages.clear()
    encoded = hub.stats.updates_encoded
    hub.begin_epoch("7")
    for peer, symbols in zip(peers, ({"AAPL"}, {"AAPL", "MSFT"}, set()), strict=True):
        await peer.read()
        assert {symbol for message in peer.messages for symbol in message["versions"]} == symbols
        assert len(peer.messages) == len(symbols)
        assert set(peer.epochs.values()) <= {"7"}
    assert hub.stats.updates_encoded == encoded + 2


async def test_no_update_comes_before_its_epoch_s_full_quote(hub, connect):
    """A trade that is faster than the new epoch's quotes is a full quote, the next a patch."""
    peer = connect("AAPL", "MSFT", "BRK.B")
    publish(hub, "MSFT", 101.0)
    hub.begin_epoch("7")
    # The new epoch has another history, with a lower version than the client's.
    hub.topics["MSFT"].version = 1
    publish(hub, "MSFT", 102.0)
    publish(hub, "MSFT", 103.0)
    await peer.read()
    assert peer.document["quotes"] == peer.truth()
    assert peer.versions["MSFT"] == 3
    moves = [message for message in peer.messages if "MSFT" in message["versions"]]
    assert [message.get("epoch") for message in moves[-2:]] == ["7", None]


async def test_old_prices_of_a_new_epoch_are_not_late(hub, connect):
    """Delivery latency is counted from the epoch's begin, not from the last trade."""
    peer = connect("AAPL")
    hub.topics["AAPL"].ts = START_US
    hub.begin_epoch("7")
    await peer.read()
    assert peer.epochs["AAPL"] == "7"
    assert hub.stats.delivery_latency.total < 1.0


async def test_a_full_socket_gets_the_newest_epoch(hub, connect):
    """A client that did not read for several epochs gets the quote of the last one only."""
    peer = connect("AAPL")
    while not peer.outbox.blocked:
        publish(hub, "AAPL", hub.topics["AAPL"].quote.current_price + 1)
        peer.outbox.flush()
    for epoch in ("7", "8", "9"):
        hub.begin_epoch(epoch)
        await trio.testing.wait_all_tasks_blocked()
    await peer.read()
    epochs = [message["epoch"] for message in peer.messages if "epoch" in message]
    assert [epoch for epoch in epochs if epoch.isdecimal()] == ["9"]
    assert peer.document["quotes"] == peer.truth()


async def test_epochs_may_follow_each_other_at_once(hub, connect):
    """The quotes of an epoch that is over already are not sent."""
    peer = connect("AAPL", "MSFT")
    hub.begin_epoch("7")
    hub.begin_epoch("8")
    await peer.read()
    assert [message["epoch"] for message in peer.messages[1:]] == ["8", "8"]


async def test_others_get_their_turn_between_the_quotes_of_many_symbols(nursery):
    """The quotes come round by round, so that queues stay short and other tasks have their turn."""
    symbols = [f"S{number}" for number in range(5 * ROUND_TRADES)]
    hub = Hub(instruments(*symbols))
    await nursery.start(hub.run)
    peer = Peer(hub)
    peer.subscribe(*symbols)
    await peer.read()
    hub.begin_epoch("7")
    most = 0
    while any(topic.quote_due for topic in hub.topics.values()):
        await trio.lowlevel.checkpoint()
        most = max(most, len(peer.outbox.queue or ()))
        peer.receive()
    assert most <= ROUND_TRADES
    await peer.read()
    assert set(peer.epochs.values()) == {"7"}
    assert set(peer.epochs) == set(symbols)
    peer.close()


def test_no_two_servers_have_the_same_epoch():
    """Names differ even in the same millisecond, and have none of the characters that `resume` uses."""
    epochs = {new_epoch() for _ in range(1000)}
    assert len(epochs) == 1000
    assert not any(set(epoch) & set(":,=") for epoch in epochs)


async def test_a_symbol_listed_in_an_epoch_belongs_to_it(hub, connect):
    """A symbol listed after the epoch began has it, for subscribers to the symbol and to `*`."""
    peers = [connect(), connect("AAPL")]
    hub.subscribe_everything(peers[0].outbox)
    hub.begin_epoch("7")
    hub.list_instrument(instruments("NEW")[0])
    peers[1].subscribe("NEW")
    for peer in peers:
        await peer.read()
    assert peers[0].epochs == dict.fromkeys(["AAPL", "MSFT", "BRK.B", "NEW"], "7")
    assert peers[1].epochs == {"AAPL": "7", "NEW": "7"}


def test_epoch_tells_when_its_server_began():
    """To the millisecond, with eight more digits that no other server has. Each full quote has it, so
    it is short.
    """
    before = time_ns() // 1_000_000
    epochs = [new_epoch() for _ in range(100)]
    assert len(set(epochs)) == 100
    for epoch in epochs:
        moment, _, chance = epoch.partition(".")
        assert before <= int(moment) <= time_ns() // 1_000_000
        assert re.fullmatch("[0-9a-f]{8}", chance)
