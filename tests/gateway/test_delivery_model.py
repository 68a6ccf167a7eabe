"""Random lives of slow clients: each patch is valid, and the document ends as the server's state."""

import json
import random

import pytest
import trio

from server.fanout.hub import Hub
from server.gateway.subscriptions import SetInterval, Subscriptions
from server.quotes.messages import encode
from tests.fanout.peer import Peer, instruments, publish
from tests.gateway.subscriber import Subscriber

NAMES = [f"S{number}" for number in range(40)]

STEPS = 120


class SlowClient(Subscriber, Peer):
    """A client of a small socket that subscribes as a session does, and reads when it likes."""

    def __init__(self, hub: Hub) -> None:
        super().__init__(hub)
        self.subscriptions = Subscriptions()
        self.outbox.owner = self

    @property
    def expected(self) -> dict[str, object]:
        return {topic.symbol: json.loads(encode(topic.quote)) for topic in self.subscribed}


def change_list(choice: random.Random, hub: Hub, number: int) -> None:
    """Delist symbols, list one of them again, or a new one."""
    names, delisted = list(hub.topics), sorted(hub.delisted)
    if choice.random() < 0.4 and len(names) > 5:
        hub.delist(choice.sample(names, 2))
    elif delisted and choice.random() < 0.6:
        hub.list_instrument(instruments(delisted[0])[0])
    else:
        hub.list_instrument(instruments(f"N{number}")[0])


def step(choice: random.Random, hub: Hub, client: SlowClient, number: int) -> None:
    """Do one thing that may happen."""
    names = list(hub.topics)
    some = choice.sample(names, choice.randint(1, min(20, len(names))))
    match choice.randrange(12):
        case 0 | 1:
            client.start(some)
        case 2:
            client.stop(some)
        case 3:
            client.start_everything()
        case 4:
            client.deliver(SetInterval(choice.choice([0, 0.25, 0.5])))
        case 5:
            client.resync()
        case 6 | 7:
            change_list(choice, hub, number)
        case _:
            for offset, name in enumerate(some):
                publish(hub, name, 100 + (number + offset) % 977 * 0.25)


@pytest.mark.parametrize("seed", range(40))
async def test_documents_are_right_whatever_happens(nursery, autojump_clock, seed):
    """Subscriptions, throttles, delistings and prices, while the clients read now and then."""
    choice, hub = random.Random(seed), Hub(instruments(*NAMES))
    await nursery.start(hub.run)
    clients = [SlowClient(hub) for _ in range(3)]
    for number in range(STEPS):
        client = choice.choice(clients)
        step(choice, hub, client, number)
        if choice.random() < 0.3:
            client.receive(choice.randint(1, 1500))
        if choice.random() < 0.3:
            await trio.sleep(choice.choice([0, 0.01, 0.3]))
    for client in clients:
        client.deliver(SetInterval(0))
    for _ in range(6):
        for client in clients:
            await client.read()
    for client in clients:
        assert client.document["quotes"] == client.expected
        client.close()
    nursery.cancel_scope.cancel()
