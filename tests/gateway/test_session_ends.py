"""A session at its end, on a pair of sockets: which side closes, and how soon."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from types import SimpleNamespace

import pytest
import trio

from server.fanout.frame import pong_frame
from server.fanout.hub import Hub
from server.gateway import session as module
from server.gateway.closing import Close
from server.quotes.messages import Unsubscribe
from tests.fanout.peer import instruments
from tests.fanout.test_listing import listed
from tests.frames import take_frame
from tests.gateway.harness import SessionHarness
from tests.gateway.wire import CLOSE, PING, PONG, TEXT, close, frame


class Served(SessionHarness):
    """A session that runs, and its client."""

    def __init__(self, hub: Hub) -> None:
        super().__init__(hub)
        self.over = trio.Event()
        self._received = b""

    async def run(self) -> None:
        """Serve the session to its end."""
        await super().run()
        self.over.set()

    def frames(self) -> list[tuple[int, bytes]]:
        """Return the frames that have come."""
        with suppress(BlockingIOError):
            while data := self.client.recv(65536):
                self._received += data
        frames = []
        while taken := take_frame(self._received):
            first, payload, self._received = taken
            frames.append((first & 0xF, payload))
        return frames

    @property
    def told_the_end(self) -> bool:
        """Return whether the server sends nothing more."""
        try:
            return self.client.recv(1) == b""
        except BlockingIOError:
            return False


@pytest.fixture
async def served(nursery: trio.Nursery) -> AsyncIterator[Served]:
    """A running session without symbols, of a hub with one."""
    hub = Hub(instruments("AAPL"))
    await nursery.start(hub.run)
    served = Served(hub)
    served.begin()
    nursery.start_soon(served.gateway.services.poller.run)
    nursery.start_soon(served.gateway.services.deadlines.run)
    nursery.start_soon(served.run)
    yield served
    served.end()


@pytest.mark.parametrize(
    ("sent", "payload", "code"),
    [(frame(CLOSE), b"", 1005), (close(1000, b"bye"), b"\x03\xe8", 1000)],
)
async def test_client_s_close_is_answered_and_ends_the_connection(
    autojump_clock, served, sent, payload, code
):
    """At once, without a code if it had none; the client need not close its socket first."""
    served.client.send(sent)
    begun = trio.current_time()
    await served.over.wait()
    assert trio.current_time() - begun < 0.1
    assert served.frames() == [(CLOSE, payload)]
    assert served.gateway.pool.closed == {code: 1}


@pytest.mark.parametrize("reason", list(Close))
async def test_server_says_why_it_closes_and_waits_two_seconds(autojump_clock, served, reason):
    """After a fault of the client's it sends nothing more, and reads nothing."""
    served.session.close(reason)
    closing = reason.value
    begun = trio.current_time()
    assert served.frames() == [(CLOSE, closing.code.to_bytes(2) + closing.reason.encode())]
    assert served.told_the_end == closing.fails
    await trio.sleep(1.9)
    assert not served.over.is_set()
    await served.over.wait()
    assert 2.0 <= trio.current_time() - begun <= 3.0
    assert served.gateway.pool.closed == {closing.code: 1}
    assert served.gateway.pool.lost == closing.lost


async def test_reason_reaches_a_client_that_did_not_read(served):
    """The server does not end its side before all of it went out."""
    served.begin("AAPL")
    served.fill_socket()
    served.session.outbox.send(pong_frame(b"last"))
    assert served.session.outbox.blocked
    served.session.close(Close.BINARY)
    frames = served.frames()
    while not frames or frames[-1][0] != CLOSE:
        await trio.testing.wait_all_tasks_blocked(0.001)
        frames += served.frames()
    assert frames[-2] == (PONG, b"last")


async def test_close_is_noticed_before_the_answers_are_read(served):
    """A client that closes may never read what it was sent."""
    served.fill_socket()
    served.session.outbox.send(pong_frame(b"waits"))
    assert served.session.outbox.blocked
    served.client.send(close(1000))
    await trio.testing.wait_all_tasks_blocked(0.001)
    assert served.session.closing


@pytest.mark.parametrize("spread", [0, 7000])
async def test_client_that_is_sent_away_comes_back_within_a_time(served, monkeypatch, spread):
    """At any moment of it, so that not all come at once. It is told once."""
    random = SimpleNamespace(randint=lambda low, high: high if spread else low)
    monkeypatch.setattr(module, "random", random)
    for _ in range(2):
        served.session.send_away(7000)
    (_, message), (kind, payload) = served.frames()
    assert b'"type":"reconnect"' in message
    assert f'"after_ms":{spread}'.encode() in message
    assert (kind, payload[:2]) == (CLOSE, b"\x03\xe9")


@pytest.mark.parametrize(
    ("sent", "heard"),
    [(frame(PONG), False), (frame(PING), True), (frame(TEXT, b'{"action":"ping"}'), True)],
)
@pytest.mark.parametrize("pinged", [True, False])
async def test_pongs_are_not_traffic(served, sent, heard, pinged):
    """But any frame proves that the client is there, and every other one is answered."""
    if pinged:
        served.session.ping()
    served.session.heard = False
    served.client.send(sent)
    await trio.testing.wait_all_tasks_blocked(0.001)
    assert served.session.heard is heard
    assert served.session.unanswered == 0
    assert len(served.frames()) == pinged + heard


async def test_delisted_symbol_is_not_subscribed_any_more(served):
    """The connection may subscribe to it again, once it is listed again."""
    served.begin("AAPL")
    served.hub.delist(["AAPL"])
    assert not served.session.subscriptions.topics
    assert not served.session.closing


async def test_renamed_symbol_is_subscribed_under_its_new_name(served):
    """The client may unsubscribe from it by that name only."""
    served.begin("AAPL")
    served.hub.rename("AAPL", listed("META"))
    (topic,) = served.session.subscriptions.topics
    assert topic.symbol == "META"


async def test_quotes_are_taken_away_once(served):
    """A client that has everything gets no quote once more before it is removed."""
    served.begin("*")
    await trio.testing.wait_all_tasks_blocked(0.001)
    served.frames()
    before = time.time_ns() // 1000
    served.execute(Unsubscribe(symbols=["*"]))
    ack, removal = (json.loads(payload) for _, payload in served.frames())
    assert ack["type"] == "ack"
    assert removal["operations"] == [{"op": "remove", "path": "/quotes/AAPL"}]
    assert before <= removal["ts"] <= time.time_ns() // 1000
