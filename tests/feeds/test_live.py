"""Live feeds behind venues that misbehave: each venue is a stand-in in memory."""

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs
from trio_websocket import WebSocketConnection, WebSocketRequest

from server.feeds.live.alpaca import Alpaca
from server.feeds.live.coinbase import Coinbase
from server.feeds.live.feed import GREETING_TIMEOUT, LiveFeed
from server.feeds.live.venue import Published, Reading, Venue
from server.invalid import InvalidRecords
from server.reconnecting import (
    CONNECT_TIMEOUT,
    FIRST_DELAY,
    LONGEST_DELAY,
    PING_INTERVAL,
    PING_TIMEOUT,
)

PATIENCE = 3600.0
"""Seconds on a clock that jumps."""

HEARTBEAT = json.dumps({"type": "heartbeat", "product_id": "BTC-USD"})


class Follower:
    """A live feed whose objects and states are written down."""

    def __init__(self, venue: Venue) -> None:
        self.invalid = InvalidRecords()
        self.feed = LiveFeed(venue, self._deliver, self, self.invalid)
        self.objects: list[Published] = []
        self.states: list[str] = []
        self._changed = trio.Condition()

    def on_connected(self) -> None:
        self.states.append("connected")

    def on_away(self) -> None:
        self.states.append("away")

    async def _deliver(self, source: str, objects: Sequence[Published]) -> None:
        assert source == self.feed.venue.name
        async with self._changed:
            self.objects += objects
            self._changed.notify_all()

    async def received(self, count: int) -> list[Published]:
        """Wait for `count` objects."""
        with trio.fail_after(PATIENCE):
            async with self._changed:
                while len(self.objects) < count:
                    await self._changed.wait()
        return self.objects


@pytest.fixture
def follow(nursery):
    """Start to follow a venue."""

    def follow(venue: Venue) -> Follower:
        follower = Follower(venue)
        nursery.start_soon(follower.feed.run)
        return follower

    return follow


def coinbase() -> Coinbase:
    return Coinbase("ws://memory", ["BTC-USD"])


def match(number: int, price: str = "400.23") -> str:
    return json.dumps(
        {
            "type": "match",
            "product_id": "BTC-USD",
            "trade_id": number,
            "price": price,
            "size": "1",
            "time": "2026-11-26T09:30:00Z",
        }
    )


async def accept(request: WebSocketRequest, *messages: str) -> WebSocketConnection:
    """Accept a subscription and send `messages`."""
    socket = await request.accept()
    assert json.loads(await socket.get_message())["type"] == "subscribe"
    for message in messages:
        await socket.send_message(message)
    return socket


async def test_trades_are_followed(autojump_clock, serve_in_memory, follow):
    async def serve(request: WebSocketRequest) -> None:
        await (await accept(request, match(1), match(2))).get_message()

    serve_in_memory(serve)
    follower = follow(coinbase())
    assert [each["seq"] for each in await follower.received(2)] == [1, 2]
    assert follower.states == ["connected"]
    assert follower.feed.connected


async def test_connection_that_ends_is_made_again(autojump_clock, serve_in_memory, follow):
    """As after 24 hours at Binance. Trades made meanwhile are counted as missed."""

    async def serve(request: WebSocketRequest) -> None:
        await (await accept(request, match(10 * len(came)))).aclose(1001)

    came = serve_in_memory(serve)
    follower = follow(coinbase())
    await follower.received(3)
    assert follower.states[:4] == ["connected", "away", "connected", "away"]
    assert follower.feed.missed == 18
    assert came[1] - came[0] <= FIRST_DELAY + 0.01


async def test_silent_venue_is_left(autojump_clock, serve_in_memory, follow):
    """Coinbase sends a heartbeat every second: after ten seconds of silence the feed reconnects."""

    async def serve(request: WebSocketRequest) -> None:
        await (await accept(request, match(len(came)))).get_message()

    came = serve_in_memory(serve)
    follower = follow(coinbase())
    await follower.received(2)
    assert 10 <= came[1] - came[0] <= 10 + FIRST_DELAY + 0.01
    assert follower.states == ["connected", "away", "connected"]


async def test_heartbeats_keep_a_quiet_market_connected(autojump_clock, serve_in_memory, follow):
    async def serve(request: WebSocketRequest) -> None:
        socket = await accept(request)
        for _ in range(60):
            await socket.send_message(HEARTBEAT)
            await trio.sleep(5)
        await socket.send_message(match(1))
        await socket.get_message()

    came = serve_in_memory(serve)
    follower = follow(coinbase())
    await follower.received(1)
    assert len(came) == 1
    assert follower.states == ["connected"]


async def test_venue_without_heartbeats_is_pinged(
    autojump_clock, serve_in_memory, follow, monkeypatch
):
    """Alpaca is silent at night. A cable that was pulled shows by the ping without an answer."""

    async def serve(request: WebSocketRequest) -> None:
        socket = await request.accept()
        await socket.send_message('[{"T":"t","S":"AAPL","p":1,"s":1,"i":1}]')
        if len(came) == 1:
            await trio.sleep(3 * PING_INTERVAL)
            monkeypatch.setattr(socket._wsproto, "receive_data", lambda _: None)
        await socket.get_message()

    came = serve_in_memory(serve)
    follower = follow(Alpaca("ws://memory", ["AAPL"], "key", "secret"))
    await follower.received(2)
    assert 3 * PING_INTERVAL <= came[1] - came[0] <= 5 * PING_INTERVAL + PING_TIMEOUT


async def test_alpaca_is_connected_once_the_subscription_stands(
    autojump_clock, serve_in_memory, follow
):
    async def serve(request: WebSocketRequest) -> None:
        socket = await request.accept()
        states.append(list(follower.states))
        for msg in ("connected", "authenticated"):
            await socket.send_message(json.dumps([{"T": "success", "msg": msg}]))
            asked.append(json.loads(await socket.get_message())["action"])
        states.append(list(follower.states))
        await socket.send_message('[{"T":"subscription","trades":["AAPL"]}]')
        await socket.send_message('[{"T":"t","S":"AAPL","p":1,"s":1,"i":1}]')
        await socket.get_message()

    asked: list[str] = []
    states: list[list[str]] = []
    serve_in_memory(serve)
    follower = follow(Alpaca("ws://memory", ["AAPL"], "key", "secret"))
    await follower.received(1)
    assert asked == ["auth", "subscribe"]
    assert states == [[], []]
    assert follower.states == ["connected"]


async def test_gaps_are_counted_and_repetitions_are_not(autojump_clock, serve_in_memory, follow):
    """The intake tells repeated trades apart; a gap is news for the operator."""

    async def serve(request: WebSocketRequest) -> None:
        numbers = [5, 6, 9, 9, 7, 10, 20]
        await (await accept(request, *map(match, numbers))).get_message()

    serve_in_memory(serve)
    follower = follow(coinbase())
    await follower.received(7)
    assert follower.feed.missed == 2 + 9


async def test_undocumented_and_damaged_messages_are_left_out(
    autojump_clock, serve_in_memory, follow
):
    async def serve(request: WebSocketRequest) -> None:
        strange: list[Any] = ['{"type":"new"}', "{", b"\xff\xfe", match(1, "free"), match(2)]
        await (await accept(request, *strange)).get_message()

    serve_in_memory(serve)
    follower = follow(coinbase())
    assert [each["seq"] for each in await follower.received(1)] == [2]
    assert follower.invalid.counts["venue"] == 3


async def test_feed_that_is_stopped_is_not_connected(autojump_clock, serve_in_memory):
    """An instance that leads no more does not say that it follows the venue."""

    async def serve(request: WebSocketRequest) -> None:
        await (await accept(request, match(1))).get_message()

    serve_in_memory(serve)
    follower = Follower(coinbase())
    async with trio.open_nursery() as running:
        running.start_soon(follower.feed.run)
        await follower.received(1)
        assert follower.feed.connected
        running.cancel_scope.cancel()
    assert not follower.feed.connected


async def test_fault_in_one_message_does_not_end_the_feed(
    autojump_clock, serve_in_memory, follow, monkeypatch
):
    """The log has its traceback, and the messages behind it count."""
    read = Coinbase.read

    def fail(venue: Coinbase, text: str | bytes) -> Reading:
        if b"FAULT" in (text if isinstance(text, bytes) else text.encode()):
            raise OverflowError("reading failed")
        return read(venue, text)

    async def serve(request: WebSocketRequest) -> None:
        await (await accept(request, match(1), '{"type":"FAULT"}', match(2))).get_message()

    monkeypatch.setattr(Coinbase, "read", fail)
    serve_in_memory(serve)
    with capture_logs() as lines:
        assert [each["seq"] for each in await follow(coinbase()).received(2)] == [1, 2]
    assert [line["event"] for line in lines if line.get("exc_info")] == ["venue message failed"]


async def test_refused_subscription_is_not_repeated_at_once(
    autojump_clock, serve_in_memory, follow
):
    async def serve(request: WebSocketRequest) -> None:
        if len(came) == 1:
            await (await accept(request, '{"type":"error","reason":"no product X"}')).get_message()
        await (await accept(request, match(1))).get_message()

    came = serve_in_memory(serve)
    with capture_logs() as lines:
        await follow(coinbase()).received(1)
    assert came[1] - came[0] >= LONGEST_DELAY
    assert "refused: no product X" in [line.get("problem") for line in lines]


async def test_rate_limit_is_kept(autojump_clock, serve_in_memory, follow):
    """The venue's `Retry-After` counts more than the feed's own back-off."""

    async def serve(request: WebSocketRequest) -> None:
        if len(came) == 1:
            await request.reject(429, extra_headers=[(b"Retry-After", b"300")])
        else:
            await (await accept(request, match(1))).get_message()

    came = serve_in_memory(serve)
    await follow(coinbase()).received(1)
    assert 300 <= came[1] - came[0] < 301


async def test_unreachable_venue_is_asked_ever_less_often(autojump_clock, serve_in_memory, follow):
    async def serve(request: WebSocketRequest) -> None:
        if len(came) < 30:
            await request.reject(503)
        else:
            await (await accept(request, match(1))).get_message()

    came = serve_in_memory(serve)
    follower = follow(coinbase())
    await follower.received(1)
    waits = [later - earlier for earlier, later in pairwise(came)]
    assert max(waits[:4]) <= FIRST_DELAY * 8 + 0.01
    assert LONGEST_DELAY / 2 < max(waits[8:]) <= LONGEST_DELAY + 0.01
    assert follower.states[-1] == "connected"


async def test_intake_without_room_holds_the_venue_back(autojump_clock, serve_in_memory, nursery):
    """No message is read while the last one's objects wait: the socket holds the venue back."""
    send, receive = trio.open_memory_channel[Sequence[Published]](0)

    async def serve(request: WebSocketRequest) -> None:
        await (await accept(request, match(1), match(2))).get_message()

    async def deliver(_: str, objects: Sequence[Published]) -> None:
        await send.send(objects)

    serve_in_memory(serve)
    follower = Follower(coinbase())
    feed = LiveFeed(coinbase(), deliver, follower, InvalidRecords())
    nursery.start_soon(feed.run)
    with trio.fail_after(PATIENCE):
        await trio.testing.wait_all_tasks_blocked()
        assert [each["seq"] for each in await receive.receive()] == [1]
        assert [each["seq"] for each in await receive.receive()] == [2]


@pytest.mark.parametrize("greets", [True, False])
async def test_venue_that_never_says_a_word_is_left(
    autojump_clock, serve_in_memory, follow, greets
):
    """Alpaca speaks first. Once the subscription stands, only pings tell that it is alive."""

    async def serve(request: WebSocketRequest) -> None:
        socket = await request.accept()
        if not greets or len(came) == 2:
            await socket.send_message('[{"T":"t","S":"AAPL","p":1,"s":1,"i":1}]')
            await trio.sleep(5 * GREETING_TIMEOUT)
            await socket.send_message('[{"T":"t","S":"AAPL","p":1,"s":1,"i":2}]')
        await socket.get_message()

    came = serve_in_memory(serve)
    await follow(Alpaca("ws://memory", ["AAPL"], "key", "secret")).received(2)
    assert len(came) == 1 + greets
    if greets:
        assert GREETING_TIMEOUT <= came[1] - came[0] <= GREETING_TIMEOUT + FIRST_DELAY + 0.01


async def test_venue_that_never_answers_the_handshake_is_away(
    autojump_clock, serve_in_memory, follow
):
    """Clients see `stale` meanwhile, and the next attempt comes in time."""

    async def serve(request: WebSocketRequest) -> None:
        if len(came) == 1:
            await trio.sleep_forever()
        await (await accept(request, match(1))).get_message()

    came = serve_in_memory(serve)
    follower = follow(coinbase())
    await follower.received(1)
    assert CONNECT_TIMEOUT <= came[1] - came[0] <= CONNECT_TIMEOUT + FIRST_DELAY + 0.01
    assert follower.states == ["away", "connected"]


async def test_faults_in_all_messages_do_not_fill_the_log(
    autojump_clock, serve_in_memory, follow, monkeypatch
):
    """One traceback in ten seconds tells of all of them."""

    def fail(_: Venue, text: str | bytes) -> Reading:
        raise OverflowError("reading failed")

    async def serve(request: WebSocketRequest) -> None:
        socket = await accept(request)
        for number in range(200):
            await socket.send_message(match(number))
            await trio.sleep(0.1)
        done.set()
        await socket.get_message()

    done = trio.Event()
    monkeypatch.setattr(Coinbase, "read", fail)
    serve_in_memory(serve)
    with capture_logs() as lines, trio.fail_after(PATIENCE):
        follow(coinbase())
        await done.wait()
    assert 2 <= len([line for line in lines if line.get("exc_info")]) <= 3
