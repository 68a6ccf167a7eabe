"""States of symbols that come from the catalogue and from other instances, and those given on."""

from time import time_ns
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
import trio
import trio.testing

from server.fanout.agreement import ahead_of
from server.fanout.broadcaster import run_broadcaster
from server.fanout.hub import Hub
from server.quotes.adjustment import split
from server.quotes.position import Position
from server.quotes.snapshot import LiveSnapshot, Snapshot, live
from server.quotes.update import Trade
from tests.fanout.peer import START_US, instruments, publish, trade
from tests.fanout.test_listing import fill, listed, watch_everything


def row_trade(price: float, row: int, ts: int = START_US) -> Trade:
    """Return a trade of AAPL from a replay's row."""
    return Trade("AAPL", price, 100, START_US, ts, row=row)


def state(symbol: str, version: int, price: float, **fields: Any) -> Snapshot:
    """Return a state that a feed has moved."""
    known = {"last_quote": price, "version": version, "quoted_at": START_US}
    return msgspec.structs.replace(listed(symbol), **(known | fields))


@pytest.mark.parametrize(
    ("mine", "theirs", "sign"),
    [
        # Version, price, moment.
        ((3, 5.0, 1), (2, 6.0, 9), 1),
        ((2, 5.0, 9), (3, 5.0, 1), -1),
        ((2, 5.0, 1), (2, 6.0, 9), 0),
        ((1, 5.0, 1), (1, 5.0, 9), 0),
        ((1, 5.0, 9), (1, 6.0, 1), 1),
        ((1, 5.0, 1), (1, 6.0, 9), -1),
        ((1, None, 9), (1, 6.0, 1), -1),
        ((1, 5.0, 1), (1, None, 9), 1),
    ],
)
def test_newer_state_counts(mine, theirs, sign):
    """By its version. Before a feed has moved it, by the moment of its price, if it has one."""
    quote = SimpleNamespace(current_price=mine[1])
    topic = SimpleNamespace(version=mine[0], quote=quote, ts=mine[2])
    other = SimpleNamespace(version=theirs[0], price=theirs[1], ts=theirs[2])
    ahead = ahead_of(cast("Any", topic), cast("Any", other))
    assert (ahead > 0) - (ahead < 0) == sign


async def test_all_of_another_instance_s_states_are_taken_over(hub):
    """Those of new symbols, too. The catalogue may have newer data of these until it was asked."""
    hub.adopt([live(state("NEW", 4, 7.0), 5, 8), live(state("AAPL", 9, 120.0), 6, 3)])
    assert (hub.snapshot("NEW").version, hub.last_row("NEW")) == (4, 8)
    assert (hub.snapshot("AAPL").last_quote, hub.topics["AAPL"].ts) == (120.0, 6)
    assert (hub.last_row("AAPL"), hub.topics["AAPL"].live_snapshot().row) == (3, 3)
    assert hub.unchecked == {"NEW"}
    hub.relist([listed("NEW")])
    assert hub.unchecked == set()


async def test_trades_between_two_states_are_not_there(hub):
    """Another instance made the versions 3 to 8. `GET /trades` tells that trades are missing."""
    publish(hub, "AAPL", 101.0)
    hub.adopt([live(state("AAPL", 8, 120.0), 6, 3)])
    publish(hub, "AAPL", 121.0)
    for version, complete in ((1, False), (2, False), (7, False), (8, True), (9, True)):
        found, whole = hub.trades.after("AAPL", version, 9, 10)
        assert [each.version for each in found] == ([9] if version < 9 else [])
        assert whole is complete


async def test_replay_goes_on_behind_its_last_row(hub):
    """Also of a symbol that was delisted meanwhile; of another one it begins with the first."""
    assert (hub.last_row("AAPL"), hub.last_row("NOPE")) == (0, 0)
    hub.topics["AAPL"].publish(row_trade(101.0, 7))
    assert hub.last_row("AAPL") == 7
    hub.delist(["AAPL"])
    assert hub.last_row("AAPL") == 7


@pytest.mark.parametrize("listed_before", [False, True])
async def test_replay_goes_on_behind_the_last_row_of_a_renamed_symbol(hub, listed_before):
    """Its rows still have the old symbol. Another instance may have listed the new one before."""
    hub.topics["AAPL"].publish(row_trade(101.0, 7))
    if listed_before:
        hub.list_instrument(*instruments("META"))
    hub.rename("AAPL", listed("META"))
    assert (hub.last_row("AAPL"), hub.last_row("META")) == (7, 7)
    assert hub.instrument("AAPL").symbol == "META"
    send, receive = trio.open_memory_channel[Trade](1)
    send.send_nowait(row_trade(102.0, 9))
    send.close()
    await run_broadcaster(hub, receive, lossless=True)
    assert (hub.last_row("AAPL"), hub.last_row("META")) == (9, 9)


async def test_replay_knows_the_last_row_of_a_symbol_that_is_newer_elsewhere(hub):
    """The new symbol is listed already, with a version above the old one's, or comes from the leader
    to an instance that never had the old one.
    """
    hub.topics["AAPL"].publish(row_trade(101.0, 7))
    hub.list_snapshots([state("META", 9, 55.0)])
    hub.rename("AAPL", listed("META"))
    assert (hub.last_row("AAPL"), hub.last_row("META")) == (7, 7)
    hub.rename("OLD", listed("NEW"))
    hub.adopt([live(state("NEW", 4, 7.0), 5, 8)])
    assert hub.last_row("OLD") == 8


async def test_replay_of_a_symbol_that_is_listed_anew_does_not_follow_the_renamed_one(hub):
    """Its rows are its own, and those of the instrument that had the symbol before are not."""
    hub.topics["AAPL"].publish(row_trade(101.0, 7))
    hub.rename("AAPL", listed("META"))
    hub.list_snapshots([listed("AAPL")])
    hub.topics["META"].absorb(row_trade(102.0, 9))
    assert (hub.last_row("AAPL"), hub.last_row("META")) == (7, 9)


async def test_present_quote_is_the_one_in_memory(hub):
    """A quote of a symbol that is not here stays as it was."""
    before = hub.topics["AAPL"].quote
    publish(hub, "AAPL", 101.0)
    assert hub.present_quote(before) is hub.topics["AAPL"].quote
    hub.delist(["AAPL"])
    assert hub.present_quote(before) is before


@pytest.mark.parametrize(
    ("given", "version", "price", "row"),
    [
        (state("AAPL", 2, 50.0), 2, 101.0, 7),
        (state("AAPL", 5, 50.0), 5, 50.0, 7),
        (live(state("AAPL", 5, 50.0), 1, 4), 5, 50.0, 4),
    ],
)
async def test_symbol_that_is_listed_again_goes_on(hub, given, version, price, row):
    """From its own last price, or from a newer one that the catalogue or another instance has. The
    catalogue knows no rows, so the replay goes on behind the last one played here.
    """
    hub.topics["AAPL"].publish(row_trade(101.0, 7))
    hub.delist(["AAPL"])
    if isinstance(given, LiveSnapshot):
        hub.adopt([given], listed=True)
    else:
        hub.list_snapshots([given])
    assert (hub.snapshot("AAPL").version, hub.snapshot("AAPL").last_quote) == (version, price)
    assert hub.last_row("AAPL") == row


async def test_catalogue_s_price_counts_until_a_feed_moves_the_quote(hub, connect):
    """Then only its reference data do, and data that are the same make no message."""
    peer = connect("AAPL")
    before = time_ns() // 1000
    hub.relist([state("AAPL", 1, 120.0)])
    await peer.read()
    assert peer.document["quotes"]["AAPL"]["current_price"] == 120.0
    assert hub.topics["AAPL"].ts >= before
    publish(hub, "AAPL", 121.0)
    await peer.read()
    count, ts = len(peer.messages), hub.topics["AAPL"].ts
    hub.relist([state("AAPL", 1, 120.0)])
    await peer.read()
    assert len(peer.messages) == count
    hub.relist([state("AAPL", 1, 120.0, name="Another name")])
    await peer.read()
    assert len(peer.messages) == count + 1
    assert peer.document["quotes"]["AAPL"]["current_price"] == 121.0
    assert hub.topics["AAPL"].ts == ts


async def test_trade_of_a_moment_before_a_split_is_adjusted(hub):
    """However shortly before; a later one is not."""
    hub.relist([split(listed("AAPL"), "4:1", again=False)])
    now = time_ns() // 1000
    hub.topics["AAPL"].publish(row_trade(112.0, 1, now - 1_000_000))
    assert hub.topics["AAPL"].quote.current_price == 28.0
    hub.topics["AAPL"].publish(row_trade(112.0, 2, now + 1_000_000))
    assert hub.topics["AAPL"].quote.current_price == 112.0


async def test_state_of_before_a_split_keeps_its_moment_and_row(hub):
    """Its price is adjusted when it is taken over."""
    hub.relist([split(listed("AAPL"), "4:1", again=False)])
    hub.adopt([live(state("AAPL", 9, 104.0), 777, 5)])
    assert (hub.snapshot("AAPL").last_quote, hub.topics["AAPL"].ts) == (26.0, 777)
    assert hub.last_row("AAPL") == 5


@pytest.mark.parametrize(
    ("moves", "former", "row", "version", "price"),
    [
        (0, 0, listed("META"), 1, 100.0),
        (1, 0, listed("META"), 3, 101.0),
        (1, 5, listed("META"), 7, 101.0),
        (1, 0, state("META", 3, 55.0), 3, 101.0),
        # The leader was ahead.
        (1, 0, state("META", 4, 55.0, volume=200), 4, 55.0),
        # The symbol had an earlier instrument, and the store does not have the last trade yet.
        (3, 0, state("META", 71, 102.0, volume=200), 76, 103.0),
        (1, 90, state("META", 71, 100.0, quoted_at=2 * START_US), 92, 101.0),
    ],
)
async def test_renamed_quote_s_version_is_above_all_others(hub, moves, former, row, version, price):
    """Above its own, and that of an earlier instrument of the symbol. The newest price counts."""
    if former:
        hub.list_instrument(*instruments("META"))
        for number in range(former):
            publish(hub, "META", 30.0 + number)
        hub.delist(["META"])
    for number in range(moves):
        publish(hub, "AAPL", 101.0 + number)
    ts = hub.topics["AAPL"].ts
    hub.rename("AAPL", row)
    assert (hub.snapshot("META").version, hub.snapshot("META").last_quote) == (version, price)
    assert hub.topics["META"].ts == ts


async def test_updates_of_a_renamed_symbol_are_patches_at_once(hub, connect):
    """Its subscribers have the quote already. A slow one gets the old quote with the new symbol."""
    everything, slow = connect(), connect("AAPL")
    watch_everything(hub, everything)
    fill(hub, slow)
    await everything.read()
    hub.rename("AAPL", listed("META"))
    publish(hub, "META", 140.0)
    await everything.read()
    assert {each["op"] for each in everything.messages[-1]["operations"]} == {"replace"}
    await slow.read()
    (move,) = [each for each in slow.messages if "renamed" in each]
    assert move["renamed"] == {"AAPL": "META"}
    assert [(each["op"], each["path"]) for each in move["operations"]] == [
        ("add", "/quotes/AAPL"),
        ("remove", "/quotes/AAPL"),
    ]


@pytest.mark.parametrize("throttled", [True, False])
async def test_quote_that_a_client_does_not_have_yet_is_given_before_it_is_taken(
    hub, connect, throttled
):
    """The symbol was listed a moment before, and its quote is held or not published yet."""
    everything = connect()
    watch_everything(hub, everything)
    await everything.read()
    if throttled:
        hub.throttle(everything.outbox, 60.0)
        hub.list_instrument(*instruments("NEW"))
        await trio.testing.wait_all_tasks_blocked()
    else:
        hub.list_snapshots([listed("NEW")])
    hub.rename("NEW", listed("NEWER"))
    await everything.read()
    assert "NEW" not in everything.document["quotes"]
    assert everything.document["quotes"]["NEWER"]["current_price"] == 100.0


async def test_status_keeps_the_interval_of_an_overload(hub, connect):
    """Both are told in one message."""
    peer = connect()
    hub.set_conflation(0.5)
    hub.set_status("stale", "feed_ended")
    await peer.read()
    told = [(each["status"], each["interval"]) for each in peer.messages]
    assert told[-1] == ("stale", 0.5)


async def test_symbol_without_a_price_is_given_on_as_it_came(hub):
    """Neither the store nor another instance takes its missing price for one."""
    row = listed("NEW", base_price=None)
    hub.list_snapshots([row])
    assert hub.snapshot("NEW") == row


async def test_status_waits_for_no_quotes_that_are_published(hub, connect):
    """Nothing is kept of a publication that is over."""
    watch_everything(hub, connect())
    for number in range(3):
        hub.list_snapshots([listed(f"NEW{number}")])
        assert hub.topic_tasks.cut()
        await trio.testing.wait_all_tasks_blocked()
        assert not hub.topic_tasks.cut()


async def test_symbol_that_is_listed_has_the_moment_at_which_it_came(hub):
    """Unless it is listed for a trade, which has its own."""
    before = time_ns() // 1000
    topic = hub.list_instrument(*instruments("NEW"))
    assert before <= topic.ts <= time_ns() // 1000
    assert hub.list_instrument(*instruments("OTHER"), trade("OTHER", 5.0)).ts == START_US


async def test_status_that_waits_for_prices_keeps_the_interval_of_an_overload(
    autojump_clock, hub, connect
):
    """The overload began after it, and is told before it."""
    peer = connect("AAPL")
    await trio.testing.wait_all_tasks_blocked()
    hub.topics["AAPL"].inbox.offer(trade("AAPL", 101.0))
    hub.set_status("stale", "feed_ended")
    hub.set_conflation(0.5)
    await trio.sleep(2.0)
    await peer.read()
    told = [each for each in peer.messages if each["type"] == "status"]
    assert [each["status"] for each in told] == ["live", "stale"]
    assert [each["interval"] for each in told] == [0.5, 0.5]


async def test_first_price_is_not_resumed_by_a_patch(hub, connect):
    """A client that left before it comes back without the quote, so no patch can move that."""
    hub.list_snapshots([listed("NEW", base_price=None)])
    peer = connect("NEW")
    await trio.testing.wait_all_tasks_blocked()
    hub.unsubscribe(peer.outbox, hub.topics["NEW"])
    publish(hub, "NEW", 5.0)
    assert peer.come_back("NEW", position=Position(hub.epoch, {"NEW": 1})).recovered == {
        "NEW": "quote"
    }


async def test_instance_that_is_ahead_at_a_rename_has_the_highest_version():
    """Then the others take over its state, whether they have the trades or the store's row only."""
    row = state("META", 71, 102.0, volume=200)
    states = []
    for trades in (1, 3, 4):
        instance = Hub(instruments("AAPL"))
        for number in range(trades):
            publish(instance, "AAPL", 101.0 + number)
        instance.rename("AAPL", row)
        topic = instance.topics["META"]
        states.append((topic.version, topic.quote.current_price))
    assert [price for _, price in states] == [102.0, 103.0, 104.0]
    assert [version for version, _ in states] == sorted({version for version, _ in states})
