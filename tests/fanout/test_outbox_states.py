"""An outbox on a socket whose room the test sets: the table of states, and no byte is lost."""

from typing import Any, cast

import pytest
import trio

from server.fanout.backlog import DRAIN_BYTES
from server.fanout.frame import Source, UpdateFrame, close_frame, pong_frame, text_frame
from server.fanout.outbox import WRITE_FRAMES, Outbox
from server.fanout.outbox_state import TRANSITIONS, Event, State
from server.fanout.stats import FanoutStats
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

    def current_frame(self) -> UpdateFrame:
        payload = b"%s quote %d" % (self.name.encode(), self.version)
        return UpdateFrame(text_frame(payload + self._padding), self)


class Notice(Source):
    """A source that takes the pending entry of a symbol."""

    def __init__(self, symbol: Symbol) -> None:
        self._symbol = symbol

    @property
    def key(self) -> object:
        return self._symbol.key

    def current_frame(self) -> UpdateFrame:
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


def cause(rig: Rig, event: Event) -> None:
    """Do to an outbox what `event` says."""
    if event is Event.FILLED:
        block(rig)
    elif event is Event.CLOSING:
        rig.outbox.close(CLOSE)
    elif event is Event.ENDED:
        rig.outbox.abandon()
    else:
        rig.outbox.set_throttle(1.0 if event is Event.HELD else 0.0)
        rig.drain()


@pytest.mark.parametrize(("before", "event"), TRANSITIONS)
def test_each_event_leads_where_the_table_says(before, event):
    """An outbox has a queue and a backlog only in the states that need them."""
    rig = in_state(before)
    cause(rig, event)
    state, outbox = rig.outbox.state, rig.outbox
    assert state is TRANSITIONS[before, event]
    assert (outbox.queue == []) == (state is State.OPEN)
    assert (outbox.queue is None) == (state is not State.OPEN)
    assert (outbox._backlog is None) == (state in (State.OPEN, State.CLOSED))
    assert outbox.blocked == (state in (State.BLOCKED, State.CLOSING))


def test_table_is_whole():
    """Each state is reached, each event is used, and only the connection's end can follow `closed`."""
    assert {state for state, _ in TRANSITIONS} == set(TRANSITIONS.values()) == set(State)
    assert {event for _, event in TRANSITIONS} == set(Event)
    assert [event for state, event in TRANSITIONS if state is State.CLOSED] == [Event.ENDED]
    assert all(TRANSITIONS[state, Event.ENDED] is State.CLOSED for state in State)
    assert all(
        TRANSITIONS[state, Event.FILLED] is State.BLOCKED for state in (State.OPEN, State.THROTTLED)
    )


def test_event_that_cannot_happen_is_an_error():
    """An outbox that is blocked already cannot fill its socket."""
    with pytest.raises(KeyError):
        in_state(State.BLOCKED).outbox._on(Event.FILLED)


@pytest.mark.parametrize(
    "count", [1, 2, *(WRITE_FRAMES + n for n in (-1, 0, 1, 2)), 2 * WRITE_FRAMES + 1]
)
def test_no_answer_is_lost_wherever_a_socket_stops(count):
    """Each answer of a round arrives once and in order, at whichever byte the socket is full."""
    frames = [pong_frame(b"%03d" % number) for number in range(count)]
    expected = [frame[2:] for frame in frames]
    for room in range(len(b"".join(frames)) + 1):
        rig = Rig(room)
        assert rig.outbox.queue is not None
        rig.outbox.queue += frames
        rig.outbox.flush()
        assert rig.outbox.blocked == (room < 5 * count)
        assert rig.stats.messages_sent == room // 5
        rig.outbox.send(pong_frame(b"last"))
        rig.drain()
        assert rig.sock.sent == [*expected, b"last"]
        assert rig.stats.messages_sent == count + 1
        assert rig.stats.bytes_sent == 5 * count + 6
        assert rig.outbox.state is State.OPEN


@pytest.mark.parametrize("count", [1, 2, WRITE_FRAMES, WRITE_FRAMES + 1, WRITE_FRAMES + 2])
def test_no_symbol_is_lost_wherever_a_socket_stops(count):
    """For each symbol that moved, the client gets either the update or the full quote."""
    size = len(Symbol("S000").update())
    for room in range(size * count + 1):
        symbols = [Symbol(f"S{number:03}") for number in range(count)]
        rig = Rig(room)
        rig.outbox.send_updates([symbol.update() for symbol in symbols])
        assert rig.outbox.blocked == (room < size * count)
        rig.drain()
        # The frame that was cut goes out to its end; the later ones are dropped.
        whole = -(-room // size)
        assert rig.sock.sent == [
            b"S%03d %s 1" % (number, b"patch" if number < whole else b"quote")
            for number in range(count)
        ]
        assert rig.stats.conflated == count - whole
        assert rig.stats.messages_sent == count


def test_writes_of_a_few_bytes_make_whole_frames():
    """The rest of a cut frame goes out before all that came later, however little room there is."""
    for room in (1, 2, 3, 7, 50):
        a, b = Symbol("A"), Symbol("B")
        rig = Rig(3)
        rig.outbox.send_updates([a.update(), b.update()])
        rig.outbox.send(pong_frame(b"answer"))
        rig.outbox.conflate(a.update().source)
        rig.drain(room)
        assert rig.sock.sent == [b"A patch 1", b"answer", b"B quote 1", b"A quote 2"]
        assert rig.blocked == 1
        assert rig.stats.messages_sent == 4


def test_blocked_until_nothing_is_pending():
    """One write holds DRAIN_BYTES or a little more. While anything is pending the outbox does not
    open, though the socket takes all it is given.
    """
    size = 1000
    symbols = [Symbol(f"S{number:03}", size) for number in range(50)]
    rig = in_state(State.BLOCKED)
    rig.outbox.send_many(symbols)
    rig.sock.room = PLENTY
    sizes = []
    while rig.outbox.blocked:
        assert rig.outbox.state is State.BLOCKED
        assert rig.outbox.queue is None
        rig.outbox.write_backlog()
        sizes.append(len(rig.sock.writes[-1]))
    assert all(DRAIN_BYTES <= each < DRAIN_BYTES + 2 * size for each in sizes[:-1])
    assert len(sizes) == 3
    assert len(rig.sock.sent) == 51
    assert rig.outbox.state is State.OPEN


@pytest.mark.parametrize(("answer", "quotes"), [(DRAIN_BYTES - 1, 1), (DRAIN_BYTES, 0)])
def test_full_write_takes_no_quote(answer, quotes):
    """Pending symbols are added while a write is smaller than DRAIN_BYTES."""
    rig = in_state(State.BLOCKED)
    # The pong that blocked it waits, too; a text frame of this size has a header of 4 bytes.
    rig.outbox.send(text_frame(b"x" * (answer - 4 - len(pong_frame(b"first")))))
    rig.outbox.send_many([Symbol("A"), Symbol("B")])
    rig.sock.room = PLENTY
    rig.outbox.write_backlog()
    assert len(rig.sock.sent) == 2 + quotes
    assert rig.outbox.blocked
    rig.drain()
    assert rig.sock.sent[2:] == [b"A quote 0", b"B quote 0"]


def test_throttled_outbox_sends_all_it_has_pending():
    """A release goes on past the first DRAIN_BYTES, and answers do not wait for it."""
    symbols = [Symbol(f"S{number:03}", 1000) for number in range(50)]
    rig = in_state(State.THROTTLED)
    for symbol in symbols:
        rig.outbox.conflate(symbol)
    rig.outbox.send(pong_frame(b"answer"))
    assert rig.sock.sent == [b"answer"]
    rig.outbox.release()
    assert len(rig.sock.sent) == 51
    assert rig.outbox.state is State.THROTTLED
    assert rig.stats.conflated == 50


def test_throttled_and_blocked_is_throttled_again():
    """A socket that fills during a release drains, and updates wait for the next release."""
    a, b = Symbol("A"), Symbol("B")
    rig = in_state(State.THROTTLED)
    rig.outbox.conflate(a)
    rig.sock.room = 4
    rig.outbox.release()
    rig.outbox.send_updates([b.update()])
    rig.drain()
    assert rig.outbox.state is State.THROTTLED
    rig.outbox.send_updates([b.update()])
    assert rig.sock.sent == [b"A quote 0", b"B quote 1"]
    rig.outbox.set_throttle(0.0)
    assert rig.sock.sent[2:] == [b"B quote 2"]
    rig.outbox.send_updates([b.update()])
    assert rig.sock.sent[3:] == [b"B patch 3"]


@pytest.mark.parametrize("room", [5, PLENTY])
def test_nothing_follows_the_close_frame(room):
    """Answers that wait come before it; pending symbols and later frames do not come."""
    for state in (State.OPEN, State.THROTTLED, State.BLOCKED):
        a, b = Symbol("A"), Symbol("B")
        rig = in_state(state)
        rig.outbox.conflate(a)
        rig.outbox.close(CLOSE)
        assert not rig.outbox.is_pending(a)
        for _ in range(2):
            rig.outbox.send(pong_frame(b"late"))
            rig.outbox.send_updates([b.update()])
            rig.outbox.send_many([a, b])
            rig.outbox.send_current(a)
            rig.outbox.conflate(b)
            rig.outbox.set_throttle(0.0)
            rig.outbox.close(CLOSE)
            rig.drain(room)
        assert rig.sock.sent == [b"first"] * (state is State.BLOCKED) + [CLOSE[2:]]
        assert rig.outbox.state is State.CLOSED


def test_broken_socket_closes():
    """A write that fails in the middle of a round closes the outbox."""
    rig = Rig()
    assert rig.outbox.queue is not None
    rig.outbox.queue += [pong_frame(b"x")] * (2 * WRITE_FRAMES)
    rig.outbox.owner = cast("Any", "a session")
    rig.sock.broken = True
    rig.outbox.flush()
    assert rig.outbox.state is State.CLOSED
    assert rig.outbox.owner is None
    assert rig.stats.messages_sent == 0
    rig.outbox.write_backlog()
    assert not rig.outbox.is_pending(Symbol("A"))


def test_queued_updates_go_out_before_a_throttle_holds_back_the_next():
    """A client that asks for fewer updates loses none of the round."""
    symbol = Symbol("A")
    rig = Rig()
    assert rig.outbox.queue is not None
    rig.outbox.queue.append(symbol.update())
    rig.outbox.set_throttle(1.0)
    rig.outbox.send_updates([symbol.update()])
    assert rig.sock.sent == [b"A patch 1"]


def test_symbol_has_one_pending_entry():
    """The source that was added last is sent; forgetting the other one leaves it."""
    for first, last in (("quote", "notice"), ("notice", "quote")):
        symbol = Symbol("A")
        sources: dict[str, Source] = {"quote": symbol, "notice": Notice(symbol)}
        rig = in_state(State.BLOCKED)
        rig.outbox.send_current(sources[first])
        rig.outbox.send_current(sources[last])
        assert rig.outbox.is_pending(sources[last])
        assert not rig.outbox.is_pending(sources[first])
        rig.outbox.forget([sources[first]])
        rig.drain()
        assert rig.sock.sent[1:] == [sources[last].current_frame()[2:]]
        assert not rig.outbox.is_pending(sources[last])


def test_forgotten_symbol_is_not_sent():
    """Queued updates of it go out first; if they find the socket full, they are dropped."""
    a, b = Symbol("A"), Symbol("B")
    for room, expected in ((PLENTY, [b"A patch 1", b"B patch 1"]), (0, [b"B quote 2"])):
        rig = Rig(room)
        assert rig.outbox.queue is not None
        rig.outbox.queue += [a.update(), b.update()]
        rig.outbox.forget([a])
        rig.drain()
        assert rig.sock.sent == expected


def test_current_state_is_sent_once():
    """It takes the place of a throttled update; a full socket gets it when it has drained."""
    symbol = Symbol("A")
    rig = in_state(State.THROTTLED)
    rig.outbox.send_updates([symbol.update()])
    rig.outbox.send_current(symbol)
    assert rig.sock.sent == [b"A quote 1"]
    rig.outbox.release()
    assert rig.sock.sent == [b"A quote 1"]
    rig.sock.room = 0
    rig.outbox.send(pong_frame(b"answer"))
    rig.outbox.send_current(symbol)
    symbol.update()
    rig.drain()
    assert rig.sock.sent == [b"A quote 1", b"answer", b"A quote 2"]


def test_sending_no_quotes_leaves_an_outbox_open():
    """A throttled one would wait for a release that nobody calls."""
    rig = Rig()
    rig.outbox.send_many([])
    assert rig.outbox.state is State.OPEN
    rig.outbox.send_many([Symbol("A")])
    assert rig.outbox.state is State.OPEN
    assert rig.sock.sent == [b"A quote 0"]


@pytest.mark.parametrize("end", ["drained", "drained, throttled", "closed", "abandoned"])
async def test_session_waits_until_its_outbox_has_drained(nursery, end):
    """The wait ends if the outbox opens, is throttled or closes, and if the connection ends."""
    rig = in_state(State.BLOCKED)
    done = trio.Event()

    async def wait() -> None:
        await rig.outbox.wait_drained()
        done.set()

    nursery.start_soon(wait)
    rig.outbox.send_many([Symbol("A", DRAIN_BYTES), Symbol("B")])
    if end == "drained, throttled":
        rig.outbox.set_throttle(1.0)
    elif end == "closed":
        rig.outbox.close(CLOSE)
    rig.sock.room = 3
    rig.outbox.write_backlog()
    await trio.testing.wait_all_tasks_blocked()
    assert not done.is_set()
    if end == "abandoned":
        rig.outbox.abandon()
    else:
        rig.drain()
    await trio.testing.wait_all_tasks_blocked()
    assert done.is_set()
    await rig.outbox.wait_drained()


async def test_session_waits_on_if_its_outbox_is_blocked_again(nursery):
    """An outbox may drain and fill once more before the waiting task has its turn."""
    rig = in_state(State.BLOCKED)
    done = trio.Event()

    async def wait() -> None:
        await rig.outbox.wait_drained()
        done.set()

    nursery.start_soon(wait)
    await trio.testing.wait_all_tasks_blocked()
    rig.drain()
    block(rig)
    await trio.testing.wait_all_tasks_blocked()
    assert not done.is_set()
    assert rig.blocked == 2
    rig.drain()
    await done.wait()
