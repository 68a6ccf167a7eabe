"""`since` of a selection: the version of the update before it, and never one that a client lacks."""

import json
from typing import Any, cast

import pytest

from server.fanout.history import HISTORY_UPDATES
from server.fanout.hub import Hub
from server.fanout.inbox import Inbox
from server.fanout.recovery import recover
from server.fanout.topic_task import publish_conflated
from server.quotes.compact import CompactView
from server.quotes.position import Position
from server.quotes.update import TopOfBook, Trade, Update
from server.quotes.view import JSON, JsonView, View
from tests.fanout.peer import START_US, instruments
from tests.fanout.rig import PLENTY, ScriptedSocket

BOOK = JsonView(("bid", "ask"))


class Client:
    """A client that selected the book of AAPL. `read` returns (since, version) of new messages."""

    def __init__(self, hub: Hub, view: View = BOOK) -> None:
        self.hub, self.view, self.topic = hub, view, hub.topics["AAPL"]
        self._connect()

    def _connect(self) -> None:
        self.sock = ScriptedSocket(PLENTY)
        self.outbox = self.hub.attach(cast("Any", self.sock), self.view)
        self.hub.subscribe(self.outbox, self.topic)

    def subscribe(self) -> "Client":
        self.hub.send_quotes(self.outbox, [self.topic])
        return self

    def leave(self) -> None:
        self.hub.detach(self.outbox, [self.topic])

    def come_back(self, held: int) -> str:
        self._connect()
        recovery = recover([self.topic], Position(self.hub.epoch, {"AAPL": held}), self.view)
        self.hub.send_recovery(self.outbox, recovery)
        return recovery.recovered["AAPL"]

    def read(self) -> list[tuple[int | None, int]]:
        self.outbox.flush()
        messages = [json.loads(payload) for payload in self.sock.sent]
        self.sock.writes.clear()
        return [
            (each["since"]["AAPL"] if "since" in each else None, each["versions"]["AAPL"])
            for each in messages
        ]


def price(number: int) -> Trade:
    return Trade("AAPL", 101 + number % 2, 100, START_US + number, START_US)


def book(number: int) -> TopOfBook:
    return TopOfBook("AAPL", 100.0 + number, 102.0 + number, 1, 1, START_US, START_US)


def publish(hub: Hub, *updates: Update) -> None:
    for update in updates:
        hub.topics["AAPL"].publish(update)


def publish_merged(hub: Hub, *updates: Update) -> None:
    inbox = Inbox(hub.stats)
    for update in updates[1:]:
        inbox.offer(update)
    publish_conflated(hub.topics["AAPL"], updates[0], inbox)


@pytest.fixture
async def hub(nursery):
    hub = Hub(instruments("AAPL"))
    await nursery.start(hub.run)
    return hub


@pytest.mark.parametrize("between", [0, 1, HISTORY_UPDATES - 1, HISTORY_UPDATES, 100])
async def test_since_is_the_update_before_in_the_selection(hub, between):
    """Other fields' changes in between count for the version only, and send nothing."""
    client = Client(hub).subscribe()
    publish(hub, book(0), *map(price, range(between)), book(1), book(2))
    assert client.read() == [(None, 1), (1, 2), (2, between + 3), (between + 3, between + 4)]


@pytest.mark.parametrize("between", [3, 100])
async def test_subscriber_between_two_changes(hub, between):
    """Its full quote is newer than the selection's last change, which `since` names for all."""
    first = Client(hub).subscribe()
    publish(hub, book(0), *map(price, range(between)))
    second = Client(hub).subscribe()
    publish(hub, price(between), book(1))
    changed = (2, between + 4)
    assert first.read() == [(None, 1), (1, 2), changed]
    assert second.read() == [(None, between + 2), changed]


async def test_first_selection_of_a_topic_that_others_watch(hub):
    """Its `since` is the last change that the topic still has, not the version that it has now."""
    Client(hub, JsonView()).subscribe()
    publish(hub, book(0), price(0), price(1))
    client = Client(hub).subscribe()
    publish(hub, book(1))
    assert client.read() == [(None, 4), (2, 5)]


@pytest.mark.parametrize("others", [True, False])
async def test_client_comes_back_though_other_fields_moved_on(hub, others):
    """The server proves from its last updates that nothing is missing, and `since` is not above."""
    if others:
        Client(hub, JsonView()).subscribe()
    client = Client(hub).subscribe()
    publish(hub, price(0), price(1))
    assert client.read() == [(None, 1)]
    client.leave()
    publish(hub, price(2), price(3))
    assert client.come_back(1) == "current"
    publish(hub, price(4), book(0))
    assert client.read() == [(1, 7)]


@pytest.mark.parametrize("others", [True, False])
async def test_client_comes_back_to_missed_changes(hub, others):
    """It gets the changes of its fields only, each with the one before it."""
    if others:
        Client(hub).subscribe()
    client = Client(hub).subscribe()
    client.leave()
    publish(hub, price(0), book(0), price(1), book(1), price(2))
    for held, missed in ((1, [(1, 3), (3, 5)]), (2, [(1, 3), (3, 5)]), (3, [(3, 5)]), (5, [])):
        assert client.come_back(held) == ("patches" if missed else "current")
        assert client.read() == missed
        client.leave()


async def test_merged_updates(hub):
    """They come as a full quote if they changed the selection, else not at all."""
    client = Client(hub).subscribe()
    publish_merged(hub, price(0), price(1), price(2))
    publish(hub, price(3), book(0))
    assert client.read() == [(None, 1), (1, 6)]
    publish_merged(hub, price(4), book(1), price(5))
    publish(hub, price(6), book(2))
    assert client.read() == [(None, 9), (9, 11)]


async def test_merged_updates_while_nobody_else_watches(hub):
    """The client's version is older than the merged ones, and the next change builds on it."""
    client = Client(hub).subscribe()
    publish_merged(hub, *map(price, range(40)))
    client.leave()
    assert client.come_back(1) == "quote"
    publish(hub, book(0))
    assert client.read() == [(None, 41), (1, 42)]


@pytest.mark.parametrize("again", ["epoch", "relist"])
async def test_full_quote_for_everybody_begins_anew(hub, again):
    """After a new epoch, or new reference data, the next change builds on that full quote."""
    client = Client(hub).subscribe()
    publish(hub, book(0), price(0), price(1))
    topic = hub.topics["AAPL"]
    if again == "epoch":
        topic.begin_epoch("9.x")
    topic.quote_due = True
    publish(hub, price(2), book(1))
    assert client.read() == [(None, 1), (1, 2), (None, 5), (5, 6)]


async def test_each_view_is_encoded_once(hub):
    """However many clients there are, live or coming back, and not at all without subscribers."""
    views = [JsonView(), BOOK]
    clients = [Client(hub, view).subscribe() for view in views for _ in range(3)]
    encoded = hub.stats.updates_encoded
    publish(hub, book(0))
    assert hub.stats.updates_encoded == encoded + 2
    publish(hub, price(0))
    assert hub.stats.updates_encoded == encoded + 3
    for client in clients:
        client.leave()
        client.come_back(1)
    assert hub.stats.updates_encoded == encoded + 3
    for client in clients:
        client.leave()
    publish(hub, book(1), price(1))
    assert hub.stats.updates_encoded == encoded + 3
    for client in clients:
        assert client.come_back(3) == "patches"
    assert hub.stats.updates_encoded == encoded + 6


@pytest.mark.parametrize("form", ["compact", "msgpack"])
async def test_change_is_read_back_from_json(nursery, form):
    """A topic keeps the frame of JSON in place of the values, and they are the same."""
    payloads = []
    for live in (True, False):
        hub = Hub(instruments("AAPL"))
        await nursery.start(hub.run)
        Client(hub, JSON).subscribe()
        client = Client(hub, CompactView(form)).subscribe()
        if not live:
            client.leave()
        publish(hub, price(0), book(0), price(1), Trade("AAPL", 7, 0.5, 0, START_US))
        if live:
            client.outbox.flush()
            payloads.append(client.sock.sent[1:])
        else:
            assert client.come_back(1) == "patches"
            payloads.append(client.sock.sent)
    assert len(payloads[0]) == 4
    assert payloads[0] == payloads[1]
