"""Topics encode once, are active while watched, and are the same for subscribers to `*`."""

import gc
import json
import weakref
from time import time_ns

import trio

from server.fanout.topic_task import RETIRE_INTERVAL, TOPIC_GRACE
from server.quotes.instrument import first_seen
from server.quotes.update import Trade
from tests.fanout.peer import CUSHION, publish


async def test_update_is_encoded_once_for_all(hub, connect):
    """A hundred subscribers get the same bytes object, made once."""
    peers = [connect("AAPL") for _ in range(100)]
    encoded = hub.stats.updates_encoded
    publish(hub, "AAPL", 101.0)
    queues = [peer.outbox.queue for peer in peers]
    assert len({id(frame) for queue in queues for frame in queue}) == 1
    assert hub.stats.updates_encoded == encoded + 1
    for peer in peers:
        await peer.read()
        assert peer.document["quotes"] == peer.truth()


async def test_full_quote_is_encoded_once_a_version(hub, connect):
    """Fifty clients that subscribe at the same version get a full quote that is encoded once."""
    publish(hub, "AAPL", 101.0)
    encoded = hub.stats.updates_encoded
    for _ in range(50):
        connect("AAPL")
    assert hub.stats.updates_encoded == encoded + 1


async def test_version_grows_by_one_with_each_change(hub):
    """Versions also grow while nobody watches; a trade that changes nothing makes none."""
    topic = hub.topics["AAPL"]
    assert topic.version == 1
    publish(hub, "AAPL", 101.0)
    # The price stays, but the volume grows.
    publish(hub, "AAPL", 101.0)
    assert topic.version == 3
    publish(hub, "AAPL", 101.001, size=0)
    assert topic.version == 3


async def test_topic_s_task_ends_a_while_after_its_last_subscriber(hub, connect, autojump_clock):
    """A topic is active from its first subscriber to the grace time after its last."""
    topic = hub.topics["AAPL"]
    assert not topic.active
    first, second = connect("AAPL"), connect("AAPL")
    inbox = topic.inbox
    assert topic.active
    assert hub.active_symbols == 1
    first.unsubscribe("AAPL")
    await trio.sleep(2 * TOPIC_GRACE)
    assert topic.active
    second.unsubscribe("AAPL")
    await trio.sleep(TOPIC_GRACE - 1)
    assert topic.active
    await trio.sleep(RETIRE_INTERVAL + 2)
    assert not topic.active
    assert inbox.finished.is_set()
    assert hub.subscriptions == hub.active_symbols == 0


async def test_topic_left_and_joined_again_goes_on(hub, connect, autojump_clock):
    """The versions continue within the grace time, and also after it, in a new task."""
    topic = hub.topics["AAPL"]
    peer = connect("AAPL")
    for pause in (TOPIC_GRACE / 2, 2 * TOPIC_GRACE):
        peer.unsubscribe("AAPL")
        await trio.sleep(pause)
        version = topic.version
        peer.subscribe("AAPL")
        assert topic.active
        publish(hub, "AAPL", 100 + version)
        await peer.read()
        assert peer.versions["AAPL"] == version + 1


async def test_symbol_listed_later_reaches_who_watches_everything(hub, connect):
    """Subscribers to `*` get a new symbol's quote at once, and then its moves."""
    everything, one = connect(), connect("AAPL")
    hub.subscribe_everything(everything.outbox)
    hub.send_quotes(everything.outbox, list(hub.topics.values()))
    hub.list_instrument(first_seen("NEW", 5.0))
    publish(hub, "NEW", 6.0)
    for peer in (everything, one):
        await peer.read()
    assert set(everything.document["quotes"]) == {"AAPL", "MSFT", "BRK.B", "NEW"}
    assert everything.document["quotes"]["NEW"]["current_price"] == 6.0
    assert set(one.document["quotes"]) == {"AAPL"}
    assert hub.subscriptions == 4 + 1
    hub.unsubscribe_everything(everything.outbox)
    publish(hub, "NEW", 7.0)
    await everything.read()
    assert everything.document["quotes"]["NEW"]["current_price"] == 6.0


async def test_status_is_told_when_it_changes(hub, connect):
    """Each client is told once, subscribed or not; the same status again is not sent."""
    peers = [connect(), connect("AAPL")]
    for status, reason in (
        ("stale", "feed_ended"),
        ("stale", "feed_ended"),
        ("live", "feed_started"),
    ):
        hub.set_status(status, reason)
    for peer in peers:
        await peer.read()
        told = [message for message in peer.messages if message["type"] == "status"]
        assert [message["status"] for message in told] == ["stale", "live"]


async def test_full_socket_gets_the_newest_status(hub, connect):
    """A client that did not read gets the status of the moment at which it reads."""
    peer = connect("AAPL")
    while not peer.outbox.blocked:
        publish(hub, "AAPL", hub.topics["AAPL"].quote.current_price + 1)
        peer.outbox.flush()
    hub.set_status("stale", "feed_ended")
    hub.set_status("live", "feed_started")
    hub.set_status("stale", "feed_failed")
    await peer.read()
    told = [message for message in peer.messages if message["type"] == "status"]
    assert [(message["status"], message["reason"]) for message in told] == [
        ("stale", "feed_failed")
    ]


async def test_nothing_is_kept_of_a_connection_that_ended(hub, connect):
    """Neither topics nor the flusher hold a reference to it, whatever its outbox's state was."""
    references = []
    for state in ("idle", "queued", "blocked", "everything"):
        peer = connect("AAPL", "MSFT")
        references.append(weakref.ref(peer.sock))
        if state == "everything":
            hub.subscribe_everything(peer.outbox)
        publish(hub, "AAPL", hub.topics["AAPL"].quote.current_price + 1)
        while state == "blocked" and not peer.outbox.blocked:
            publish(hub, "AAPL", hub.topics["AAPL"].quote.current_price + 1)
            peer.outbox.flush()
        peer.close()
        await trio.testing.wait_all_tasks_blocked(CUSHION)
    del peer
    # The fixture's own list of peers.
    connect.__closure__[1].cell_contents.clear()
    gc.collect()
    assert [reference() for reference in references] == [None] * 4
    assert hub.subscriptions == 0


async def test_message_starts_with_its_type_and_ts(hub, connect):
    """`ts`, the intake's moment, comes right after `type`."""
    peer = connect("AAPL")
    publish(hub, "AAPL", 101.0)
    frame = peer.outbox.queue[0]
    assert list(json.loads(frame[4:])) == ["type", "ts", "versions", "operations"]
    assert frame[4:].startswith(b'{"type":"quotes_patch","ts":1764012345678901,')


async def test_no_delivery_takes_less_than_no_time(hub, connect):
    """A price from a clock that is ahead counts as delivered in 0 seconds."""
    peer = connect("AAPL")
    ahead = time_ns() // 1000 + 3600 * 1_000_000
    hub.topics["AAPL"].publish(Trade("AAPL", 101.0, 100, ahead, ahead))
    await peer.read()
    assert hub.stats.delivery_latency.total == 0.0
    assert sum(hub.stats.delivery_latency.counts) == 1
