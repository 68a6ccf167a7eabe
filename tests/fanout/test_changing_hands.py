"""Symbols pass from one instrument to another. Quotes and subscribers stay with their instrument."""

import msgspec
import pytest
import trio
import trio.testing

from server.quotes.adjustment import split, succeeding
from server.quotes.snapshot import Snapshot, live
from server.quotes.update import Move
from tests.fanout.peer import START_US, publish, trade
from tests.fanout.test_listing import fill, listed, watch_everything
from tests.fanout.test_renaming import MOVED, Owner


def rows(*renames: tuple[str, str]) -> list[Snapshot]:
    """Return the catalogue's rows after these renames of AAPL and MSFT, one after the other."""
    found = {symbol: listed(symbol) for symbol in ("AAPL", "MSFT")}
    for time, (old, new) in enumerate(renames, 1):
        found[new] = succeeding(found.pop(old), new, 1, time)
    return [*found.values()]


@pytest.mark.parametrize("slow", [True, False])
@pytest.mark.parametrize(
    ("renames", "moved"),
    [
        ([("AAPL", "OLD"), ("MSFT", "AAPL")], {"AAPL": "OLD", "MSFT": "AAPL"}),
        (
            [("AAPL", "TMP"), ("MSFT", "AAPL"), ("TMP", "MSFT")],
            {"AAPL": "MSFT", "MSFT": "AAPL"},
        ),
        ([("AAPL", "A"), ("A", "B"), ("MSFT", "A")], {"AAPL": "B", "MSFT": "A"}),
    ],
)
async def test_symbols_change_hands_at_once(hub, connect, renames, moved, slow):
    """Each subscriber keeps its instrument, whichever row is read first; versions grow."""
    one, two, both, everything = (
        connect("AAPL"),
        connect("MSFT"),
        connect("AAPL", "MSFT"),
        connect(),
    )
    watch_everything(hub, everything)
    publish(hub, "AAPL", 110.0)
    publish(hub, "MSFT", 220.0)
    versions = {symbol: topic.version for symbol, topic in hub.topics.items()}
    for peer in (one, two, both, everything):
        await peer.read()
    if slow:
        fill(hub, both)
    hub.follow(rows(*renames)[::-1], certain=True)
    price = hub.topics[moved["AAPL"]].quote.current_price
    expected = {moved["AAPL"]: price, moved["MSFT"]: 220.0}
    for peer, names in [(one, ["AAPL"]), (two, ["MSFT"]), (both, ["AAPL", "MSFT"])]:
        await peer.read()
        quotes = peer.document["quotes"]
        wanted = {moved[name]: expected[moved[name]] for name in names}
        assert {symbol: quote["current_price"] for symbol, quote in quotes.items()} == wanted
        assert all(quote["symbol"] == symbol for symbol, quote in quotes.items())
    await everything.read()
    quotes = everything.document["quotes"]
    assert quotes.keys() == hub.topics.keys() == {*expected, "BRK.B"}
    assert {symbol: quotes[symbol]["current_price"] for symbol in expected} == expected
    assert all(hub.topics[new].version > versions[old] for old, new in moved.items())
    assert [hub.present_symbol(old) for old in moved if old not in expected] == [
        moved[old] for old in moved if old not in expected
    ]


async def test_symbol_that_another_instrument_takes_is_delisted_first(hub, connect):
    """Its own instrument is not listed any more, under any symbol."""
    one, two = connect("AAPL"), connect("MSFT")
    owner = Owner(one)
    publish(hub, "AAPL", 110.0)
    publish(hub, "MSFT", 220.0)
    row = succeeding(listed("MSFT"), "AAPL", 1, 5)
    assert hub.follow([row]) == {}
    assert hub.topics.keys() >= {"AAPL", "MSFT"}
    assert hub.follow([row], certain=True) == {"AAPL": None, "MSFT": "AAPL"}
    for peer, price in ((one, None), (two, 220.0)):
        await peer.read()
        quotes = peer.document["quotes"]
        assert quotes.keys() == ({"AAPL"} if price else set())
        assert not price or quotes["AAPL"]["current_price"] == price
    assert owner.gone == ["AAPL"]
    assert hub.topics["AAPL"].version > 2
    assert "MSFT" not in hub.topics


async def test_state_of_another_instrument_changes_nothing(hub, connect):
    """The leader, or the catalogue, is ahead of this instance or behind it by a rename."""
    peer = connect("AAPL")
    publish(hub, "AAPL", 110.0)
    row = succeeding(listed("OTHER"), "AAPL", 1, 5)
    before = hub.snapshot("AAPL")
    for older in (False, True):
        hub.adopt([live(msgspec.structs.replace(row, version=9, last_quote=5.0), 9)], older=older)
    hub.relist([row])
    assert hub.snapshot("AAPL") == before
    await peer.read()
    assert peer.document["quotes"]["AAPL"]["current_price"] == 110.0


async def test_follower_renames_by_the_leader_s_state(hub, connect):
    """Clients to `*` lose the old symbol with the message that gives the new one."""
    single, everything = connect("AAPL"), connect()
    watch_everything(hub, everything)
    publish(hub, "AAPL", 110.0)
    row = succeeding(hub.snapshot("AAPL"), "META", 1, 5)
    hub.adopt([live(msgspec.structs.replace(row, version=9, last_quote=111.0), 9)])
    for peer in (single, everything):
        await peer.read()
        move = next(each for each in peer.messages if "renamed" in each)
        assert [(each["op"], each["path"]) for each in move["operations"]] == MOVED
        assert peer.document["quotes"]["META"]["current_price"] == 111.0
        assert peer.versions["META"] == 9
        assert "AAPL" not in peer.document["quotes"]


async def test_former_instrument_of_a_symbol_is_not_revived(hub, connect):
    """A client asks for the symbol before this instance hears of the rename to it."""
    publish(hub, "AAPL", 110.0)
    version = hub.topics["AAPL"].version
    hub.delist(["AAPL"])
    hub.list_snapshots([succeeding(listed("OTHER", base_price=7.0), "AAPL", 1, 5)])
    peer = connect("AAPL")
    await peer.read()
    assert peer.document["quotes"]["AAPL"]["current_price"] == 7.0
    assert peer.versions["AAPL"] > version


async def test_updates_that_waited_come_before_those_of_the_new_symbol(hub, connect):
    """Another instance was faster, so the new symbol has its task already."""
    peer = connect("AAPL", "MSFT")
    await trio.testing.wait_all_tasks_blocked()
    old, new = hub.topics["AAPL"].inbox, hub.topics["MSFT"].inbox
    for price in (110.0, 111.0):
        old.offer(trade("AAPL", price))
    new.offer(trade("MSFT", 112.0))
    hub.rename("AAPL", listed("MSFT"))
    hub.topics["MSFT"].inbox.offer(trade("MSFT", 113.0))
    await peer.read()
    assert hub.topics["MSFT"].quote.volume == 400
    assert peer.document["quotes"]["MSFT"]["current_price"] == 113.0


async def test_move_of_a_symbol_s_former_instrument_changes_nothing(hub):
    """The leader has not heard of the rename yet, and goes on with the former one."""
    hub.relist([split(listed("MSFT"), "2:1", again=False)])
    row = succeeding(hub.snapshot("MSFT"), "AAPL", 1, 5)
    hub.follow([row], certain=True)
    price = hub.topics["AAPL"].quote.current_price
    for adjustments in (0, 1):
        move = Move("AAPL", 99, 400.0, 900, START_US, START_US, adjustments=adjustments)
        hub.topics["AAPL"].publish(move)
    assert hub.topics["AAPL"].quote.current_price == price
