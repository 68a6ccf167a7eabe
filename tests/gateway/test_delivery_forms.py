"""Random lives of clients of all forms and selections, mixed: each has what the server has."""

import json
import random
import socket
import zlib

import pytest
import trio
from msgspec.structs import replace

from server.fanout.breaker import BreakerPolicy
from server.fanout.hub import Hub
from server.fanout.inbox import Inbox
from server.fanout.recovery import recover
from server.fanout.topic import Topic
from server.fanout.topic_task import publish_conflated
from server.gateway.subscriptions import SendRecovery, SetInterval, Subscriptions
from server.gateway.views import Views, parse_fields
from server.quotes.messages import encode
from server.quotes.position import parse_position
from server.quotes.update import Change, TopOfBook, Trade, Update
from server.quotes.view import FORMS, Form, View
from tests.fanout.peer import CUSHION, SMALL_BUFFER, START_US, instruments
from tests.forms import FormDocument, Quote, selected
from tests.frames import take_frame
from tests.gateway.subscriber import Subscriber

NAMES = [f"S{number}" for number in range(8)]

SELECTIONS = ("", "current_price", "bid,ask,bid_size", "volume,change_percent,symbol", "name")

STEPS = 150

PATIENT = BreakerPolicy(stall_timeout=1e9)
"""It gives no client up, however long it does not read."""


class Truth:
    """All that a quote has been, by epoch, symbol and version."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._quotes: dict[tuple[str, str, int], list[Quote]] = {}

    def note(self, topic: Topic) -> None:
        known = self._quotes.setdefault((topic.epoch, topic.symbol, topic.version), [])
        if (quote := json.loads(encode(topic.quote))) not in known:
            known.append(quote)

    def note_all(self) -> None:
        for topic in self._hub.topics.values():
            self.note(topic)

    def check(self, client: "FormPeer") -> None:
        """Compare each quote that a client had with the server's of that version."""
        for key, quote in client.seen.items():
            assert quote in [selected(each, client.fields) for each in self._quotes[key]], key
        client.seen.clear()


class FormPeer(Subscriber, FormDocument):
    """A client of a small socket that subscribes as a session does, and reads when it likes."""

    def __init__(self, hub: Hub, view: View, fields: str, *, deflate: bool) -> None:
        super().__init__(view.form, fields)
        self.hub, self.view, self.fields, self._deflate = hub, view, fields, deflate
        self.interval = 0.0
        self.subscriptions = Subscriptions()
        self.connect()

    def connect(self) -> None:
        self.sock, self._client = socket.socketpair(socket.AF_UNIX)
        for end in (self.sock, self._client):
            end.setblocking(False)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)
        self.outbox = self.hub.attach(self.sock, self.view, deflate=self._deflate)
        self.outbox.owner = self
        self._received = b""
        self.schema = []
        if opening := self.view.opening():
            self.read(2 if self.view.binary else 1, opening)

    def close(self) -> None:
        self.hub.detach(self.outbox, self.subscriptions.topics)
        trio.lowlevel.notify_closing(self.sock)
        self.sock.close()
        self._client.close()

    def come_back(self) -> None:
        """Resume on another connection with all that was read, without a throttle."""
        self.close()
        topics = [each for each in self.subscriptions.topics if each.symbol in self.hub.topics]
        everything = self.subscriptions.everything
        self.subscriptions = Subscriptions()
        self.connect()
        held = parse_position(self.position()) if self.epoch else None
        if everything:
            topics = list(self.hub.topics.values())
            self.deliver(self.subscriptions.start_everything())
        else:
            self.deliver(self.subscriptions.start(topics))
        recovery = recover(topics, held, self.view)
        recovered = recovery.recovered if held else {}
        self.quotes = {s: quote for s, quote in self.quotes.items() if s in recovered}
        self.deliver(SendRecovery(recovery))

    def receive(self, size: int = 65536) -> int:
        """Read once, at most `size` bytes; return the number of bytes."""
        try:
            data = self._client.recv(size)
        except BlockingIOError:
            return 0
        self._received += data
        while frame := take_frame(self._received):
            first, payload, self._received = frame
            if first & 0x40:
                assert self._deflate
                payload = zlib.decompressobj(-15).decompress(payload + b"\x00\x00\xff\xff")
            self.read(first & 0xF, payload)
        return len(data)

    async def read_all(self) -> None:
        """Read until nothing more comes."""
        await trio.testing.wait_all_tasks_blocked(CUSHION)
        while self.receive():
            await trio.testing.wait_all_tasks_blocked(CUSHION)

    @property
    def expected(self) -> dict[str, Quote]:
        return {
            topic.symbol: selected(json.loads(encode(topic.quote)), self.fields)
            for topic in self.subscribed
        }


def update_of(choice: random.Random, symbol: str, number: int) -> Update:
    """Return an update of one kind: some change the price, others only volume or the book."""
    price, now = 100 + number % 977 * 0.25, START_US + number * 1000
    match choice.randrange(4):
        case 0:
            return Trade(symbol, 100.0, choice.randint(0, 2) * 100, now, now)
        case 1:
            return TopOfBook(symbol, price, price + 1, choice.randint(1, 3), None, now, now)
        case 2:
            return Change(symbol, None, 100, 0, now)
        case _:
            return Trade(symbol, price, 100, now, now)


def move(choice: random.Random, hub: Hub, truth: Truth, number: int) -> None:
    """Publish updates of some symbols, one by one or merged as in an overload."""
    names = choice.sample(list(hub.topics), choice.randint(1, len(hub.topics)))
    for offset, name in enumerate(names):
        topic = hub.topics[name]
        updates = [
            update_of(choice, name, number * 8 + offset + i)
            for i in range(choice.choice([1, 1, 3, 40]))
        ]
        if choice.random() < 0.2:
            first, *others = updates
            inbox = Inbox(hub.stats)
            for each in others:
                inbox.offer(each)
            publish_conflated(topic, first, inbox)
            truth.note(topic)
            continue
        for each in updates:
            topic.publish(each)
            truth.note(topic)


def change_list(choice: random.Random, hub: Hub, number: int) -> None:
    """Delist, list again, rename, change reference data, or begin an epoch."""
    names, delisted = list(hub.topics), sorted(hub.delisted)
    name = choice.choice(names)
    match choice.randrange(6):
        case 0 if len(names) > 4:
            hub.delist(choice.sample(names, 2))
        case 1 if delisted:
            hub.list_instrument(instruments(delisted[0])[0])
        case 2:
            hub.list_instrument(instruments(f"N{number}")[0])
        case 3:
            row = replace(hub.topics[name].snapshot(), symbol=f"R{number}")
            hub.rename(name, row)
        case 4:
            row = replace(hub.topics[name].snapshot(), name=f"name {number}")
            hub.relist([row])
        case _:
            hub.begin_epoch(f"{number}.x")


def step(choice: random.Random, hub: Hub, truth: Truth, client: FormPeer, number: int) -> None:
    """Do one thing that may happen."""
    names = list(hub.topics)
    some = choice.sample(names, choice.randint(1, len(names)))
    match choice.randrange(14):
        case 0 | 1:
            client.start(some)
        case 2:
            client.stop(some)
        case 3:
            client.start_everything()
        case 4:
            client.deliver(SetInterval(choice.choice([0, 0, 0.25])))
        case 5:
            client.resync()
        case 6:
            change_list(choice, hub, number)
        case 7 | 8:
            client.come_back()
        case _:
            move(choice, hub, truth, number)
    truth.note_all()


def clients_of(hub: Hub, choice: random.Random) -> list[FormPeer]:
    """Return a JSON client, and one client of each form with some selection."""
    views = Views()
    wishes: list[tuple[Form, str]] = [("json", "")]
    wishes += [(form, choice.choice(SELECTIONS)) for form in FORMS for _ in range(2)]
    return [
        FormPeer(
            hub,
            views.take(form, parse_fields(fields) if fields else None),
            fields,
            deflate=choice.random() < 0.3,
        )
        for form, fields in wishes
    ]


@pytest.mark.parametrize("seed", range(40))
async def test_every_client_has_what_the_server_has(nursery, autojump_clock, seed):
    """Whatever happens, each version that a client has is the server's, and none is missing."""
    choice, hub = random.Random(seed), Hub(instruments(*NAMES), breaker=PATIENT)
    await nursery.start(hub.run)
    truth = Truth(hub)
    clients = clients_of(hub, choice)
    truth.note_all()
    for number in range(STEPS):
        step(choice, hub, truth, choice.choice(clients), number)
        for client in clients:
            if choice.random() < 0.4:
                client.receive(choice.choice([100, 1500, 65536]))
                truth.check(client)
        if choice.random() < 0.3:
            await trio.sleep(choice.choice([0, 0.01, 0.3, 40]))
    for client in clients:
        client.deliver(SetInterval(0))
    for _ in range(6):
        for client in clients:
            await client.read_all()
    for client in clients:
        truth.check(client)
        assert client.quotes == client.expected, (client.form, client.fields)
        client.close()
    nursery.cancel_scope.cancel()
