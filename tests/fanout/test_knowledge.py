"""The hub knows its symbols' state, and takes over newer states from others."""

import time

import msgspec
import pytest
import trio
from structlog.testing import capture_logs

from server.fanout.backlog import DRAIN_BYTES, Backlog
from server.fanout.broadcaster import give
from server.fanout.frame import Source, UpdateFrame
from server.fanout.history import SETTLING_TIME
from server.fanout.hub import ONE_MESSAGE, Hub
from server.fanout.journal import Journal
from server.fanout.stats import FanoutStats
from server.fanout.throttle import granted
from server.quotes.instrument import LARGEST_WHOLE, Instrument
from server.quotes.position import Position
from server.quotes.quote import from_microseconds
from server.quotes.snapshot import Snapshot, live
from server.quotes.update import Move, Trade
from server.quotes.view import JSON
from tests.fanout.peer import START_US, Peer, instruments, publish, trade

LAST = Snapshot("NEW", "NEW", 1, 105.5, 100.0, 7, 2, False, 300, 9, START_US)


async def test_watched_symbols_are_those_that_somebody_gets(hub, connect):
    """Subscribed to by its name or by `*`; an unknown symbol is not."""
    connect("AAPL")
    assert hub.is_watched("AAPL")
    assert not hub.is_watched("MSFT")
    assert not hub.is_watched("NOPE")
    hub.subscribe_everything(connect().outbox)
    assert hub.is_watched("MSFT")
    assert not hub.is_watched("NOPE")


async def test_tick_precision_of_symbols(hub):
    """Its own, or the finest for a symbol that nobody listed."""
    hub.list_instrument(Instrument(symbol="JPY", name="Yen", base_price=150.0, price_decimals=3))
    assert hub.instrument("AAPL").price_decimals == 2
    assert hub.instrument("JPY").price_decimals == 3
    assert hub.instrument("NOPE").price_decimals == 4


async def test_delisted_symbols_are_still_known(hub):
    """Their last prices are to be kept; of a symbol that never was here there is none."""
    hub.delist(["AAPL", "NOPE"])
    assert {topic.symbol for topic in hub.known_topics()} == {"AAPL", "MSFT", "BRK.B"}
    assert set(hub.topics) == {"MSFT", "BRK.B"}


async def test_listed_symbol_goes_on_from_its_last_price(hub):
    """Whether the store or another instance gives it; one that is here already stays as it is."""
    hub.list_snapshots([LAST, msgspec.structs.replace(LAST, symbol="AAPL")])
    other = msgspec.structs.replace(LAST, symbol="OTHER")
    hub.adopt([live(other, 77)])
    assert hub.snapshot("NEW") == LAST
    assert hub.snapshot("OTHER") == other
    assert hub.topics["OTHER"].live_snapshot() == live(other, 77)
    assert hub.topics["AAPL"].version == 1


async def test_symbol_that_was_never_traded_has_the_time_of_its_price(hub):
    """It is that of the catalogue, if that knows it. It is not that of the request, and not 1970."""
    price = Snapshot("NEW", "NEW", 1, 100.0, 100.0)
    timed = msgspec.structs.replace(price, symbol="TIMED", quoted_at=5_000_000)
    hub.list_snapshots([price, timed])
    assert hub.topics["NEW"].quote.last_updated is None
    assert hub.topics["TIMED"].quote.last_updated == from_microseconds(5_000_000)


async def test_price_of_another_instance_is_taken_over_whole(hub, connect):
    """Also a first one; the same version again sends nothing, and no other instance lists again what
    was delisted here.
    """
    peer = connect("AAPL")
    for version in (2, 5):
        state = msgspec.structs.replace(
            live(LAST, 77), symbol="AAPL", name="AAPL", market_cap=None, version=version
        )
        hub.adopt([state])
        assert hub.topics["AAPL"].live_snapshot() == state
    await peer.read()
    received = len(peer.messages)
    hub.adopt([state])
    await peer.read()
    assert len(peer.messages) == received
    hub.delist(["MSFT"])
    hub.adopt([msgspec.structs.replace(state, symbol="MSFT")])
    assert "MSFT" not in hub.topics


async def test_conflated_versions_are_counted(autojump_clock, hub, connect):
    """Each that no client saw, of watched symbols only; a single trade is a patch as ever."""
    peer = connect("AAPL")
    await peer.read()
    hub.set_conflation(0.5)
    conflated = []
    for trades in (5, 1, 3):
        for number in range(trades):
            price = 100 + trades + number
            assert give(hub, hub.topics["AAPL"], trade("AAPL", price)) is None
            give(hub, hub.topics["MSFT"], trade("MSFT", price))
        await trio.sleep(1)
        await peer.read()
        conflated.append(hub.stats.conflated)
    assert conflated == [4, 4, 6]
    updates = [each for each in peer.messages[1:] if each["type"] == "quotes_patch"]
    assert [each["operations"][0]["op"] for each in updates] == ["add", "replace", "add"]


@pytest.mark.parametrize("by_name", [True, False])
async def test_symbol_in_its_grace_time_gets_no_more_time_to_trade(
    autojump_clock, nursery, by_name
):
    """One that nobody watched for long does: its first subscriber waits for it."""
    hub = Hub(instruments("AAPL", "MSFT", "BRK.B"), quiet_after=10.0)
    await nursery.start(hub.run)
    await trio.sleep(100)
    first, second = Peer(hub), Peer(hub)
    first.subscribe("AAPL")
    publish(hub, "AAPL", 101.0)
    await trio.sleep(1)
    first.unsubscribe("AAPL")
    await trio.sleep(6)
    if by_name:
        second.subscribe("AAPL", "MSFT", "BRK.B")
    else:
        hub.subscribe_everything(second.outbox)
        hub.send_quotes(second.outbox, list(hub.topics.values()))
    for quiet in ([["AAPL"]], [["AAPL"], ["MSFT"]]):
        for _ in range(6):
            await trio.sleep(1)
            publish(hub, "BRK.B", 100 + trio.current_time() / 100)
            await second.read()
        told = [each["symbols"] for each in second.messages if each["type"] == "status"]
        assert told == quiet
    first.close()
    second.close()


async def test_new_reference_data_reach_all_that_come_back(autojump_clock, hub, connect):
    """Within the settling time in full, whatever they hold; later only those of earlier versions."""
    peer = connect("AAPL")
    publish(hub, "AAPL", 101.0)
    await peer.read()
    hub.relist([msgspec.structs.replace(hub.snapshot("AAPL"), name="Renamed")])
    await peer.read()
    assert peer.come_back("AAPL").recovered == {"AAPL": "quote"}
    await trio.sleep(SETTLING_TIME + 1)
    await peer.read()
    assert peer.come_back("AAPL").recovered == {"AAPL": "quote"}
    publish(hub, "AAPL", 102.0)
    await peer.read()
    assert peer.come_back("AAPL").recovered == {"AAPL": "current"}


@pytest.mark.parametrize(("settled", "way"), [(False, "quote"), (True, "current")])
async def test_epoch_that_begins_counts_proofs_anew(autojump_clock, hub, connect, settled, way):
    """Its lowest versions prove that a client has the reference data, unless they are not settled."""
    peer = connect("MSFT")
    publish(hub, "MSFT", 101.0)
    hub.relist([msgspec.structs.replace(hub.snapshot("MSFT"), name="Renamed")])
    if settled:
        await trio.sleep(SETTLING_TIME + 1)
        await peer.read()
        peer.come_back("MSFT")
    lower = msgspec.structs.replace(hub.topics["MSFT"].live_snapshot(), version=1, ts=5)
    hub.adopt([lower], older=True)
    hub.begin_epoch("another")
    await peer.read()
    recovery = peer.come_back("MSFT", position=Position("another", {"MSFT": 1}))
    assert recovery.recovered == {"MSFT": way}
    hub.begin_epoch("another")
    assert peer.come_back("MSFT", position=Position("another", {"MSFT": 1})).recovered == {
        "MSFT": way
    }


@pytest.mark.parametrize("more", [0, 1])
async def test_a_thousand_quotes_are_one_message(hub, connect, more):
    """Of more, each is made when the client takes it."""
    names = [f"S{number}" for number in range(ONE_MESSAGE + more)]
    hub.list_snapshots([msgspec.structs.replace(LAST, symbol=name) for name in names])
    peer = connect()
    hub.send_quotes(peer.outbox, [hub.topics[name] for name in names])
    await peer.read()
    assert len(peer.document["quotes"]) == len(names)
    assert (len(peer.messages) == 1) is (more == 0)


async def test_times_of_messages_that_are_no_prices(hub, connect):
    """They are made now, so nothing counts them as delivered minutes late."""
    peer = connect("AAPL", "MSFT")
    hub.set_status("stale", "feed_lost")
    await peer.read()
    hub.topics["AAPL"].publish_source(hub.topics["AAPL"].freshness)
    await peer.read()
    hub.delist(["MSFT"])
    await peer.read()
    assert hub.stats.delivery_latency.total < 60
    assert peer.messages[-1]["ts"] == pytest.approx(time.time() * 1e6, abs=60e6)


async def test_sessions_are_told_of_delistings(hub, connect):
    """Which symbol it is that they are not subscribed to any more."""
    told = []

    class Owner:
        def on_delisted(self, topic):
            told.append(topic)

    peer = connect("AAPL")
    peer.outbox.owner = Owner()
    topic = hub.topics["AAPL"]
    hub.delist(["AAPL"])
    assert told == [topic]


async def test_what_is_left_in_a_task_that_ends_can_be_discarded(hub, connect):
    """Also when nothing is."""
    connect("AAPL")
    topic = hub.topics["AAPL"]
    topic.inbox.offer(Move("AAPL", 2, 101.0, 50, START_US, START_US))
    topic.deactivate()
    hub.discard_waiting()
    hub.discard_waiting()
    await trio.testing.wait_all_tasks_blocked()
    assert topic.version == 1


async def test_wait_for_the_journal_ends_while_there_is_anything(autojump_clock):
    """Moves that were not taken the last time are still to be told."""
    journal = Journal()
    journal.open()
    journal.record(Move("A", 2, 100.0, 0, START_US, START_US))
    with trio.fail_after(1):
        await journal.wait()
        await journal.wait()


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        (-1, 0),
        (0, 0),
        (0.1, 0.25),
        (0.25, 0.25),
        (0.26, 0.5),
        (0.9, 1),
        (1, 1),
        (60, 60),
        (1e9, 60),
    ],
)
def test_throttle_s_interval_is_the_next_longer_one(asked, kept):
    """At most a minute; zero ends the throttle."""
    assert granted(asked) == kept


def test_longest_burst_is_taken_once():
    """The next one counts from zero."""
    stats = FanoutStats()
    stats.longest_burst = 0.5
    assert stats.take_longest_burst() == 0.5
    assert stats.take_longest_burst() == 0.0


def test_drained_socket_is_given_little_at_a_time():
    """Nothing that must arrive waits; of the quotes, as many as a socket takes."""

    class Quote(Source):
        @property
        def key(self):
            return self

        def current_frame(self, view):
            return UpdateFrame(b"x" * (DRAIN_BYTES // 16), self)

    backlog = Backlog()
    for _ in range(40):
        backlog.add(Quote())
    assert [len(backlog.take(DRAIN_BYTES, JSON)) for _ in range(4)] == [16, 16, 8, 0]
    backlog.unsent = [b"y" * DRAIN_BYTES, b"z"]
    backlog.add(Quote())
    assert len(backlog.take(DRAIN_BYTES, JSON)) == 2
    assert len(backlog.take(DRAIN_BYTES, JSON)) == 1


async def test_delivery_is_measured_for_every_connection(hub, connect):
    """From the intake of the trade to the write, in seconds; a round's own time is short."""
    peers = [connect("AAPL") for _ in range(3)]
    for peer in peers:
        await peer.read()
    latency = hub.stats.delivery_latency
    counted, total = sum(latency.counts), latency.total
    taken_in = time.time_ns() // 1000 - 10_000_000
    hub.topics["AAPL"].publish(Trade("AAPL", 101.0, 100, START_US, taken_in))
    for peer in peers:
        await peer.read()
    assert sum(latency.counts) - counted == 3
    assert 30 <= latency.total - total < 33
    assert hub.stats.longest_burst < 10


async def test_version_that_is_here_already_changes_nothing(hub):
    """Whatever it says; the largest version there is stays, and the log names the symbol."""
    state = msgspec.structs.replace(
        live(LAST, 77), symbol="AAPL", name="AAPL", version=LARGEST_WHOLE - 1
    )
    hub.adopt([state])
    topic = hub.topics["AAPL"]
    topic.publish(Move("AAPL", LARGEST_WHOLE - 1, 7.0, 7, START_US, START_US))
    assert topic.quote.current_price == 105.5
    publish(hub, "AAPL", 106.0)
    with capture_logs() as logs:
        publish(hub, "AAPL", 107.0)
    assert (topic.version, topic.quote.current_price) == (LARGEST_WHOLE, 106.0)
    assert [each["key"] for each in logs] == ["AAPL"]
