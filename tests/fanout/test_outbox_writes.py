"""No answer and no symbol of an outbox is lost, wherever its socket stops."""

import pytest

from server.fanout.backlog import DRAIN_BYTES
from server.fanout.frame import Source, pong_frame, text_frame
from server.fanout.outbox import WRITE_FRAMES
from server.fanout.outbox_state import State
from server.quotes.view import JSON
from tests.fanout.rig import PLENTY, Notice, Rig, Symbol, in_state


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
        assert rig.sock.sent[1:] == [sources[last].current_frame(JSON)[2:]]
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
