"""The client's end of an outbox on real sockets. It reads as much as a test wants, and checks all
it reads.
"""

import json
import socket
from typing import Any

import jsonpatch
import trio

from server.fanout.frame import text_frame
from server.fanout.hub import Hub
from server.fanout.outbox import Outbox
from server.fanout.recovery import Recovery, recover
from server.fanout.topic import Topic
from server.quotes.instrument import Instrument
from server.quotes.messages import QuotesPatch, encode
from server.quotes.patch import Remove
from server.quotes.position import Position
from server.quotes.update import Trade
from tests.frames import take_frame

SMALL_BUFFER = 2048
"""Bytes asked of the kernel for the socket's send buffer: it is full after a few updates."""

CUSHION = 0.002
"""Seconds for the kernel to say that a socket is writable."""

START_US = 1_764_012_345_678_901


def instruments(*symbols: str) -> list[Instrument]:
    """Return instruments whose base price is 100 dollars."""
    return [Instrument(symbol=symbol, name=symbol, base_price=100.0) for symbol in symbols]


def trade(symbol: str, price: float, size: int = 100) -> Trade:
    """Return a trade of a fixed moment."""
    return Trade(symbol, price, size, START_US, START_US)


def publish(hub: Hub, symbol: str, price: float, size: int = 100) -> None:
    """Move a quote now; its update waits for the end of the round."""
    hub.topics[symbol].publish(trade(symbol, price, size))


class Peer:
    """A connection's two ends: `outbox` on the server's, and what the client has read so far."""

    def __init__(self, hub: Hub, kind: socket.SocketKind = socket.SOCK_STREAM) -> None:
        self.hub = hub
        self._kind = kind
        self._connect(kind)
        self.document: dict[str, Any] = {"quotes": {}}
        self.versions: dict[str, int] = {}
        self.epochs: dict[str, str] = {}
        self.messages: list[dict[str, Any]] = []

    def _connect(self, kind: socket.SocketKind) -> None:
        self.sock, self._client = socket.socketpair(socket.AF_UNIX, kind)
        for end in (self.sock, self._client):
            end.setblocking(False)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)
        self.outbox: Outbox = self.hub.attach(self.sock)
        self.topics: set[Topic] = set()
        self.control: list[tuple[int, bytes]] = []
        self._received = b""

    def subscribe(self, *symbols: str) -> None:
        """Subscribe, then send the full quotes, as a session does."""
        topics = [self.hub.topics[symbol] for symbol in symbols]
        for topic in topics:
            self.hub.subscribe(self.outbox, topic)
        self.topics.update(topics)
        self.hub.send_quotes(self.outbox, topics)

    def come_back(self, *symbols: str, position: Position | None = None) -> Recovery:
        """End the connection and resume on another, by default with all that was read."""
        held = self.position() if position is None else position
        self.close()
        self._connect(self._kind)
        topics = [self.hub.topics[symbol] for symbol in symbols]
        for topic in topics:
            self.hub.subscribe(self.outbox, topic)
        self.topics.update(topics)
        recovery = recover(topics, held)
        for symbol in self.document["quotes"].keys() - recovery.recovered.keys():
            del self.document["quotes"][symbol]
        self.hub.send_recovery(self.outbox, recovery)
        return recovery

    def position(self) -> Position:
        """Return the versions read of the newest epoch."""
        epoch = list(self.epochs.values())[-1] if self.epochs else "none"
        held = {
            symbol: version
            for symbol, version in self.versions.items()
            if self.epochs[symbol] == epoch and symbol in self.document["quotes"]
        }
        return Position(epoch, held)

    def unsubscribe(self, symbol: str) -> None:
        """Unsubscribe, then take the quote away, as a session does."""
        topic = self.hub.topics[symbol]
        self.hub.unsubscribe(self.outbox, topic)
        self.topics.discard(topic)
        versions = {symbol: topic.version}
        self.outbox.send(text_frame(encode(QuotesPatch(0, versions, [Remove(topic.pointer)]))))

    def receive(self, size: int = 65536) -> int:
        """Read once, at most `size` bytes; return the number of bytes."""
        try:
            data = self._client.recv(size)
        except BlockingIOError:
            return 0
        self._received += data
        while frame := take_frame(self._received):
            first, payload, self._received = frame
            self._on_frame(first, payload)
        return len(data)

    async def read(self) -> None:
        """Read until nothing more comes."""
        await trio.testing.wait_all_tasks_blocked(CUSHION)
        while self.receive():
            await trio.testing.wait_all_tasks_blocked(CUSHION)

    async def read_on(self) -> None:
        """Read all that comes, until cancelled."""
        while True:
            await trio.lowlevel.wait_readable(self._client)
            self.receive()

    def vanish(self) -> None:
        """Close the client's end."""
        self._client.close()

    def close(self) -> None:
        """End the connection as its session does."""
        self.hub.detach(self.outbox, self.topics)
        if self.sock.fileno() != -1:
            trio.lowlevel.notify_closing(self.sock)
        self.sock.close()
        self._client.close()

    def truth(self) -> dict[str, Any]:
        """Return the hub's quotes, to which the document has to be equal."""
        topics = list(self.topics)
        return {topic.symbol: json.loads(encode(topic.quote)) for topic in topics}

    def _on_frame(self, first: int, payload: bytes) -> None:
        assert first & 0xF0 == 0x80, "not the start of a frame: frames were mixed up"
        assert not self.control or self.control[-1][0] != 0x88, "something follows the close frame"
        if first != 0x81:
            self.control.append((first, payload))
            return
        message = json.loads(payload)
        self.messages.append(message)
        if message["type"] == "quotes_patch":
            self._apply(message)

    def _apply(self, message: dict[str, Any]) -> None:
        jsonpatch.apply_patch(self.document, message["operations"], in_place=True)
        kinds = {operation["op"] for operation in message["operations"]}
        assert len(kinds) == 1 or kinds == {"add", "remove"}
        for symbol, version in message["versions"].items():
            if kinds == {"replace"}:
                assert version == self.versions[symbol] + 1, "a replace skips a version"
            elif "add" in kinds:
                if message["epoch"] == self.epochs.get(symbol):
                    assert version >= self.versions[symbol], "a version goes back"
                # The newest epoch has to be the last in the dict.
                self.epochs.pop(symbol, None)
                self.epochs[symbol] = message["epoch"]
            self.versions[symbol] = version
