"""A client that comes back gets the updates that it missed, and nothing twice."""

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from quotestream.document import Document
from server.fanout.history import HISTORY_UPDATES, SETTLING_TIME, History
from server.fanout.hub import Hub
from server.fanout.inbox import Inbox
from server.fanout.topic_task import RETIRE_INTERVAL, TOPIC_GRACE, publish_conflated
from server.quotes.position import Position, parse_position
from server.quotes.snapshot import opening_snapshot
from server.quotes.view import JSON
from tests.fanout.peer import CUSHION, Peer, instruments, publish, trade

SYMBOLS = ["AAPL", "BRK.B", "MSFT"]


def move(hub: Hub, symbol: str, times: int = 1) -> None:
    """Change a quote, by a cent each time."""
    for _ in range(times):
        publish(hub, symbol, (hub.topics[symbol].quote.current_price or 0.0) + 0.01)


async def test_each_symbol_is_recovered_in_its_own_way(hub, connect):
    """A client gets nothing of an unchanged symbol, the missed patches of another, a full quote of
    a new one.
    """
    peer = connect("AAPL", "MSFT")
    await peer.read()
    peer.messages.clear()
    move(hub, "MSFT", 3)
    recovery = peer.come_back("AAPL", "MSFT", "BRK.B")
    assert recovery.recovered == {"AAPL": "current", "MSFT": "patches", "BRK.B": "quote"}
    await peer.read()
    assert [[*message["versions"]] for message in peer.messages] == [["BRK.B"], *[["MSFT"]] * 3]
    assert peer.document["quotes"] == peer.truth()


async def test_missed_patches_are_the_bytes_the_others_got(hub, connect):
    """They are encoded once for the clients that stayed and those that come back."""
    there, away = connect("AAPL"), connect("AAPL")
    await away.read()
    move(hub, "AAPL", 3)
    encoded = hub.stats.updates_encoded
    frames = [*there.outbox.queue]
    patches = away.come_back("AAPL").patches
    assert [id(frame) for frame in patches] == [id(frame) for frame in frames]
    assert hub.stats.updates_encoded == encoded


async def test_history_is_bounded(hub, connect):
    """A client that missed more updates than are kept gets the full quote; one less, the patches."""
    peer = connect("AAPL")
    await peer.read()
    held = peer.position()
    move(hub, "AAPL", HISTORY_UPDATES)
    assert peer.come_back("AAPL").recovered == {"AAPL": "patches"}
    move(hub, "AAPL")
    assert peer.come_back("AAPL", position=held).recovered == {"AAPL": "quote"}
    await peer.read()
    assert peer.document["quotes"] == peer.truth()
    assert len(hub.topics["AAPL"].history._updates) == HISTORY_UPDATES


async def test_history_grows_while_nobody_watches_and_ends_with_the_task(
    hub, connect, autojump_clock
):
    """In the grace time updates are kept for the last client's return; after it nothing is kept or
    encoded.
    """
    peer = connect("AAPL")
    await peer.read()
    held = peer.position()
    peer.unsubscribe("AAPL")
    await peer.read()
    move(hub, "AAPL")
    assert peer.come_back("AAPL", position=held).recovered == {"AAPL": "patches"}
    peer.unsubscribe("AAPL")
    await trio.sleep(TOPIC_GRACE + RETIRE_INTERVAL + 1)
    assert hub.topics["AAPL"].history._updates is None
    encoded = hub.stats.updates_encoded
    move(hub, "AAPL")
    assert hub.stats.updates_encoded == encoded
    assert peer.come_back("AAPL", position=held).recovered == {"AAPL": "quote"}


async def test_a_hole_is_never_bridged(hub, connect):
    """Updates merged in an overload end what was kept before; the next are kept again."""
    peer = connect("AAPL")
    await peer.read()
    held = peer.position()
    move(hub, "AAPL")
    hub.set_conflation(0.001)
    for cents in range(2):
        hub.topics["AAPL"].inbox.offer(trade("AAPL", 105 + cents / 100))
    await trio.testing.wait_all_tasks_blocked(CUSHION)
    hub.set_conflation(0)
    assert peer.come_back("AAPL", position=held).recovered == {"AAPL": "quote"}
    await peer.read()
    move(hub, "AAPL")
    assert peer.come_back("AAPL").recovered == {"AAPL": "patches"}
    await peer.read()
    assert peer.document["quotes"] == peer.truth()


async def test_a_state_taken_over_is_a_hole(hub, connect):
    """The updates kept do not lead to another instance's state, though nobody watched when it came."""
    peer = connect("AAPL")
    await peer.read()
    move(hub, "AAPL")
    peer.unsubscribe("AAPL")
    await peer.read()
    topic = hub.topics["AAPL"]
    hub.adopt([structs.replace(topic.live_snapshot(), last_quote=150.0, version=3)])
    position = Position(hub.epoch, {"AAPL": 2})
    assert peer.come_back("AAPL", position=position).recovered == {"AAPL": "quote"}
    await peer.read()
    assert peer.document["quotes"] == peer.truth()


async def test_renamed_while_away(hub, connect, autojump_clock):
    """A position up to the rename does not prove the name, nor does one of soon after it, from an
    instance that has not heard; a later one does. Other symbols are not sent again.
    """
    peer = connect("AAPL", "MSFT")
    move(hub, "AAPL")
    await peer.read()
    for missed in (0, 1):
        held = peer.position()
        peer.unsubscribe("AAPL")
        move(hub, "AAPL", missed)
        rename(hub, "AAPL", f"Apple {missed}")
        move(hub, "AAPL")
        recovery = peer.come_back("AAPL", "MSFT", position=held)
        assert recovery.recovered == {"AAPL": "quote", "MSFT": "current"}
        await peer.read()
        assert peer.document["quotes"] == peer.truth()
        assert peer.document["quotes"]["AAPL"]["name"] == f"Apple {missed}"
        move(hub, "AAPL", 2)
        late = Position(hub.epoch, {"AAPL": hub.topics["AAPL"].version - 1})
        for wait in (SETTLING_TIME, 0):
            recovery = peer.come_back("AAPL", "MSFT", position=late)
            assert recovery.recovered["AAPL"] == "quote"
            await peer.read()
            await trio.sleep(wait)
        for _ in range(2):
            await peer.read()
            move(hub, "AAPL")
        recovery = peer.come_back("AAPL", "MSFT")
        assert recovery.recovered == {"AAPL": "patches", "MSFT": "current"}
        await peer.read()


def test_only_later_versions_prove_new_reference_data():
    """After a change none proves it until it is settled, then none up to the version of that moment."""
    history = History()
    history.start()
    assert history.missed(JSON, 5, 5, 0.0) == []
    history.on_relisted(0.0)
    for now in (0.0, SETTLING_TIME - 0.1, SETTLING_TIME):
        assert history.missed(JSON, 5, 5, now) is None
    assert history.missed(JSON, 6, 6, SETTLING_TIME) == []
    history.on_epoch()
    assert history.missed(JSON, 1, 1, SETTLING_TIME) == []
    assert history.missed(JSON, 2, 1, SETTLING_TIME) is None


async def test_listed_again_under_another_name_while_away(hub, connect):
    """The versions go on over a delisting, in the same epoch, and do not prove the name either."""
    peer = connect("AAPL")
    await peer.read()
    held = peer.position()
    hub.delist(["AAPL"])
    hub.list_instrument(structs.replace(hub.delisted["AAPL"].instrument, name="Apple"))
    assert peer.come_back("AAPL", position=held).recovered == {"AAPL": "quote"}


async def test_position_of_another_epoch_proves_nothing(hub, connect):
    """A position of another epoch, or of a version not reached here, gets the full quote."""
    peer = connect("AAPL")
    move(hub, "AAPL", 2)
    await peer.read()
    held = {"AAPL": 3}
    for position in (Position("other", held), Position(hub.epoch, {"AAPL": 4})):
        assert peer.come_back("AAPL", position=position).recovered == {"AAPL": "quote"}
    hub.begin_epoch("7")
    assert peer.come_back("AAPL").recovered == {"AAPL": "quote"}
    # The updates of the epoch before do not lead to a version of this one.
    position = Position("7", {"AAPL": 2})
    assert peer.come_back("AAPL", position=position).recovered == {"AAPL": "quote"}


async def test_what_a_full_socket_has_no_room_for_comes_as_a_full_quote(hub, connect):
    """A client that comes back and does not read gets the full quotes of what it missed."""
    peer = connect(*SYMBOLS)
    await peer.read()
    move(hub, "AAPL", 30)
    move(hub, "MSFT", 30)
    peer.come_back(*SYMBOLS)
    assert peer.outbox.blocked
    move(hub, "AAPL")
    await peer.read()
    assert peer.document["quotes"] == peer.truth()
    assert not peer.outbox.blocked


async def test_client_that_returns_hears_what_is_quiet(hub, connect):
    """A client is told of a quiet symbol, though its quote is not sent again."""
    hub.topics["AAPL"].freshness.quiet = True
    peer = connect("AAPL")
    await peer.read()
    peer.messages.clear()
    assert peer.come_back("AAPL").recovered == {"AAPL": "current"}
    await peer.read()
    assert [message["reason"] for message in peer.messages] == ["quiet"]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("trade"), st.sampled_from(SYMBOLS), st.integers(1, HISTORY_UPDATES + 2)),
        st.tuples(st.just("merge"), st.sampled_from(SYMBOLS), st.integers(1, 3)),
        st.tuples(st.just("read"), st.integers(1, 3000), st.none()),
        st.tuples(
            st.just("return"), st.sets(st.sampled_from(SYMBOLS)), st.sampled_from([None, *SYMBOLS])
        ),
        st.tuples(st.just("epoch"), st.integers(1, 9), st.none()),
        st.tuples(st.just("retire"), st.none(), st.none()),
        st.tuples(st.just("rest"), st.none(), st.none()),
    ),
    max_size=40,
)


@settings(max_examples=200)
@given(STEPS)
def test_any_return_ends_right(steps):
    """Trades, merged updates, renames, epochs, cuts and returns come in any order. No `replace`
    skips a version, and the client's document ends as the server's.
    """
    trio.run(play, steps)


async def play(steps):
    hub = Hub(instruments(*SYMBOLS))
    async with trio.open_nursery() as nursery:
        await nursery.start(hub.run)
        peer, document = Peer(hub), Document()
        peer.subscribe("AAPL", "MSFT")
        for kind, subject, count in steps:
            if kind == "trade":
                move(hub, subject, count)
            elif kind == "merge":
                merge(hub, subject, count)
            elif kind == "read":
                peer.receive(subject)
            elif kind == "return":
                peer.receive()
                take_in(peer, document)
                held = parse_position(document.position) if document.position else None
                # The symbol is renamed while the client is away.
                if count:
                    peer.close()
                    rename(hub, count, "Renamed")
                recovery = peer.come_back(*subject, position=held or Position("none", {}))
                document.recovered(recovery.recovered)
            elif kind == "epoch":
                begin_epoch(hub, subject)
            elif kind == "retire":
                retire(hub)
            else:
                await trio.testing.wait_all_tasks_blocked()
        await peer.read()
        take_in(peer, document)
        assert peer.document["quotes"] == document.quotes == peer.truth()
        assert {symbol: document.versions[symbol] for symbol in document.quotes} == {
            topic.symbol: topic.version for topic in peer.topics
        }
        peer.close()
        nursery.cancel_scope.cancel()


def merge(hub: Hub, symbol: str, trades: int) -> None:
    """Do what a topic's task does with `trades` trades in an overload."""
    topic = hub.topics[symbol]
    if not topic.active:
        return
    inbox = Inbox(hub.stats)
    for cents in range(trades):
        inbox.offer(trade(symbol, 200 + topic.version + cents / 100))
    first = inbox.take_nowait()
    assert first is not None
    publish_conflated(topic, first, inbox)


def begin_epoch(hub: Hub, version: int) -> None:
    """Adopt another history, in which all quotes have this version."""
    for topic in hub.topics.values():
        topic.version = version
    hub.begin_epoch(f"{version}.{hub.epoch}")


def rename(hub: Hub, symbol: str, name: str) -> None:
    """Do what an import of the same symbol with another name does."""
    instrument = structs.replace(hub.topics[symbol].instrument, name=name)
    hub.relist([opening_snapshot(instrument)])


def retire(hub: Hub) -> None:
    """End the grace time of all topics that nobody watches."""
    for topic in hub.topics.values():
        if not topic.watched:
            topic.deactivate()


def take_in(peer: Peer, document: Document) -> None:
    """Apply what the client has read since the last call."""
    for message in peer.messages:
        if message["type"] == "quotes_patch":
            assert document.apply(message) == []
    peer.messages.clear()
