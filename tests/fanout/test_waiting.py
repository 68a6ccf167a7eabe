"""Instruments without a price: no client has their quote before the first one."""

import msgspec
import pytest
import trio.testing

from server.fanout.broadcaster import give
from server.fanout.hub import Hub
from server.fanout.topic import Topic
from server.quotes.instrument import Instrument
from server.quotes.quote import resumed_quote
from server.quotes.snapshot import live, opening_snapshot
from server.quotes.update import Move, TopOfBook
from tests.fanout.peer import START_US, publish, trade

NEW = Instrument(symbol="NEW", name="Newcomer", base_price=None, price_decimals=4)


@pytest.fixture
def waiting(hub: Hub) -> Topic:
    """Return the topic of an instrument without a price."""
    return hub.list_instrument(NEW)


async def test_quote_comes_in_full_with_the_first_trade(hub, connect, waiting):
    """It has the first price as the base price. The next trade is a patch."""
    named, everything = connect("NEW", "AAPL"), connect()
    hub.subscribe_everything(everything.outbox)
    await named.read()
    assert set(named.document["quotes"]) == {"AAPL"}
    publish(hub, "NEW", 5.12341)
    await named.read()
    await everything.read()
    for peer in (named, everything):
        assert [each["op"] for each in peer.messages[-1]["operations"]] == ["add"]
        quote = peer.document["quotes"]["NEW"]
        assert (quote["current_price"], quote["base_price"], quote["volume"]) == (
            5.1234,
            5.1234,
            100,
        )
        assert (quote["change"], quote["change_percent"]) == (0, 0)
    publish(hub, "NEW", 6.0)
    await named.read()
    assert {each["op"] for each in named.messages[-1]["operations"]} == {"replace"}
    assert named.document["quotes"] == named.truth()
    snapshot = waiting.snapshot()
    assert (snapshot.base_price, snapshot.last_quote, snapshot.version) == (5.1234, 6.0, 3)


async def test_first_trade_while_nobody_watches(hub, connect, waiting):
    """Later subscribers get the quote once, and then patches."""
    give(hub, waiting, trade("NEW", 5.0))
    peer = connect("NEW")
    publish(hub, "NEW", 6.0)
    await peer.read()
    kinds = [each["op"] for message in peer.messages for each in message["operations"]]
    assert kinds.count("add") == 1
    assert peer.document["quotes"] == peer.truth()


@pytest.mark.parametrize("watched", [True, False])
async def test_nothing_is_taken_away_that_nobody_has(hub, connect, waiting, watched):
    """Neither a delisting nor a new epoch sends a message."""
    peer = connect("NEW") if watched else connect()
    if not watched:
        hub.subscribe_everything(peer.outbox)
    hub.begin_epoch("another")
    await peer.read()
    messages = [each for each in peer.messages if "NEW" in each.get("versions", {})]
    hub.delist(["NEW"])
    await peer.read()
    assert not messages
    assert not [each for each in peer.messages if "NEW" in each.get("versions", {})]
    assert not waiting.watched


async def test_client_that_comes_back_has_missed_nothing(hub, connect, waiting):
    """And it gets the quote in full with the first price."""
    peer = connect("NEW", "AAPL")
    await peer.read()
    recovery = peer.come_back("NEW", "AAPL")
    assert recovery.recovered == {"NEW": "current", "AAPL": "current"}
    publish(hub, "NEW", 5.0)
    await peer.read()
    assert peer.document["quotes"] == peer.truth()


async def test_price_of_the_catalogue_ends_the_waiting(hub, connect, waiting):
    """The version stays. Reference data without a price do not take one away."""
    peer = connect("NEW")
    priced = msgspec.structs.replace(opening_snapshot(NEW), base_price=7.0, last_quote=8.0)
    hub.relist([priced])
    await peer.read()
    quote = peer.document["quotes"]["NEW"]
    assert (quote["current_price"], quote["base_price"], peer.versions["NEW"]) == (8, 7, 1)
    hub.relist([opening_snapshot(NEW)])
    await peer.read()
    assert peer.document["quotes"] == {"NEW": quote}
    assert hub.snapshot("NEW") == priced
    publish(hub, "NEW", 9.0)
    hub.relist([msgspec.structs.replace(opening_snapshot(NEW), name="Renamed")])
    await peer.read()
    quote = peer.document["quotes"]["NEW"]
    assert (quote["current_price"], quote["base_price"], quote["name"]) == (9, 7, "Renamed")
    assert not waiting.waiting


async def test_price_of_another_instance_ends_the_waiting(hub, connect, waiting):
    """Its state has the base price. A move has none: its price is taken."""
    peer = connect("NEW")
    state = msgspec.structs.replace(
        opening_snapshot(NEW), base_price=7.0, last_quote=8.0, version=5, quoted_at=START_US
    )
    hub.adopt([live(state, START_US)])
    await peer.read()
    quote = peer.document["quotes"]["NEW"]
    assert (quote["current_price"], quote["base_price"], peer.versions["NEW"]) == (8, 7, 5)
    other = hub.list_instrument(msgspec.structs.replace(NEW, symbol="OTHER"))
    other.publish(Move("OTHER", 4, 3.0, 10, START_US, START_US))
    assert (other.quote.base_price, other.version) == (3.0, 4)


async def test_stale_state_takes_no_price_away(hub, waiting):
    """Another instance may not have read the newest price of the catalogue yet."""
    ts = waiting.ts
    priced = msgspec.structs.replace(opening_snapshot(NEW), base_price=7.0, last_quote=8.0)
    hub.relist([priced])
    older = msgspec.structs.replace(priced, last_quote=9.0)
    for state in (live(opening_snapshot(NEW), ts + 10**12), live(older, ts - 1)):
        hub.adopt([state])
        assert waiting.quote.current_price == 8.0
    hub.adopt([live(older, waiting.ts + 1)])
    assert waiting.quote.current_price == 9.0
    hub.adopt([live(opening_snapshot(NEW), ts)], older=True)
    assert waiting.quote.base_price == 7.0
    await trio.testing.wait_all_tasks_blocked()


async def test_book_comes_before_the_first_price(hub, connect, waiting):
    """Clients get the quote in full without a price, and once more with the first price."""
    peer = connect("NEW", "AAPL")
    await peer.read()
    for bid in (4.5, 4.75):
        hub.topics["NEW"].publish(TopOfBook("NEW", bid, None, 100, None, START_US, START_US))
        await peer.read()
    quote = peer.document["quotes"]["NEW"]
    assert (quote["current_price"], quote["last_updated"], quote["bid"]) == (None, None, 4.75)
    snapshot = waiting.snapshot()
    assert (snapshot.base_price, snapshot.bid, snapshot.version) == (None, 4.75, 3)
    assert resumed_quote(snapshot) == waiting.quote
    publish(hub, "NEW", 5.0)
    await peer.read()
    quote = peer.document["quotes"]["NEW"]
    assert (quote["current_price"], quote["base_price"], quote["bid"]) == (5.0, 5.0, 4.75)
    kinds = [
        message["operations"][0]["op"] for message in peer.messages if "NEW" in message["versions"]
    ]
    assert kinds == ["add", "replace", "add"]
    assert peer.versions["NEW"] == 4


async def test_price_of_an_import_reaches_a_quote_that_has_a_book(hub, connect, waiting):
    """It is the first price, also if the book came before."""
    waiting.publish(TopOfBook("NEW", 4.5, None, 100, None, START_US, START_US))
    peer = connect("NEW")
    hub.relist([opening_snapshot(msgspec.structs.replace(NEW, base_price=7.0))])
    await peer.read()
    quote = peer.document["quotes"]["NEW"]
    assert (quote["current_price"], quote["base_price"], quote["bid"]) == (7.0, 7.0, 4.5)
