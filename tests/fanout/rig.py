"""An outbox on a socket whose room the test sets."""

from typing import Any, cast

from server.fanout.frame import Source, UpdateFrame, close_frame, pong_frame, text_frame
from server.fanout.outbox import Outbox
from server.fanout.outbox_state import State
from server.fanout.stats import FanoutStats
from server.quotes.view import JSON, View
from tests.frames import take_frame

PLENTY = 1 << 30
"""Bytes that no test sends."""


CLOSE = close_frame(1001, "bye")


class ScriptedSocket:
    """Takes `room` bytes, then says that it is full. Keeps each write's bytes."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.broken = False
        self.writes: list[bytes] = []

    def send(self, data: bytes) -> int:
        if self.broken:
            raise BrokenPipeError
        if not self.room:
            raise BlockingIOError
        taken = data[: self.room]
        self.room -= len(taken)
        self.writes.append(taken)
        return len(taken)

    @property
    def sent(self) -> list[bytes]:
        """Return the payloads of all frames, which have to be whole."""
        data, payloads = b"".join(self.writes), []
        while frame := take_frame(data):
            _, payload, data = frame
            payloads.append(payload)
        assert data == b"", "a frame is cut"
        return payloads


class Symbol(Source):
    """A source with a version, like a topic."""

    def __init__(self, name: str, size: int = 0) -> None:
        self.name = name
        self.version = 0
        self._padding = b"." * size

    def update(self) -> UpdateFrame:
        """Return the update to the next version."""
        self.version += 1
        return UpdateFrame(text_frame(b"%s patch %d" % (self.name.encode(), self.version)), self)

    def current_frame(self, view: View = JSON) -> UpdateFrame:
        payload = b"%s quote %d" % (self.name.encode(), self.version)
        return UpdateFrame(text_frame(payload + self._padding), self)


class Notice(Source):
    """A source that takes the pending entry of a symbol."""

    def __init__(self, symbol: Symbol) -> None:
        self._symbol = symbol

    @property
    def key(self) -> object:
        return self._symbol.key

    def current_frame(self, view: View = JSON) -> UpdateFrame:
        return UpdateFrame(text_frame(b"%s removed" % self._symbol.name.encode()), self)


class Rig:
    """An outbox, its socket, its counters, and the number of times it became blocked."""

    def __init__(self, room: int = PLENTY) -> None:
        self.sock = ScriptedSocket(room)
        self.stats = FanoutStats()
        self.blocked = 0
        self.outbox = Outbox(cast("Any", self.sock), self.stats, self._count)

    def _count(self, outbox: Outbox) -> None:
        assert outbox is self.outbox
        self.blocked += 1

    def drain(self, room: int = PLENTY) -> None:
        """Make room again and again until the outbox is not blocked, as its writer does."""
        for _ in range(100_000):
            if not self.outbox.blocked:
                return
            self.sock.room = room
            self.outbox.write_backlog()
        raise AssertionError("the outbox stays blocked")


def block(rig: Rig) -> None:
    rig.sock.room = 0
    rig.outbox.send(pong_frame(b"first"))


def in_state(state: State) -> Rig:
    """Bring an outbox to `state`."""
    rig = Rig()
    if state is State.THROTTLED:
        rig.outbox.set_throttle(1.0)
    elif state in (State.BLOCKED, State.CLOSING):
        block(rig)
    if state in (State.CLOSING, State.CLOSED):
        rig.outbox.close(CLOSE)
    assert rig.outbox.state is state
    return rig
