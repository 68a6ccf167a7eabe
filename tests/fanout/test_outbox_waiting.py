"""What waits in an outbox: for the socket, for a throttled client's release, and for how long."""

import socket

import pytest
import trio

from server.fanout.backlog import DRAIN_BYTES
from server.fanout.blocked_writers import WriteSize
from server.fanout.frame import pong_frame
from server.fanout.outbox import WRITE_FRAMES
from tests.fanout.rig import PLENTY, Rig, Symbol, block


@pytest.mark.parametrize("count", [1, 2, WRITE_FRAMES, WRITE_FRAMES + 1, 3 * WRITE_FRAMES])
def test_round_is_written_in_pieces(count):
    """Joining more into one write would copy more memory at once and save little."""
    rig = Rig()
    assert rig.outbox.queue is not None
    rig.outbox.queue += [pong_frame(b"%03d" % number) for number in range(count)]
    rig.outbox.flush()
    assert [len(write) // 5 for write in rig.sock.writes] == [
        min(WRITE_FRAMES, count - start) for start in range(0, count, WRITE_FRAMES)
    ]
    assert rig.sock.sent == [b"%03d" % number for number in range(count)]


def test_throttled_client_s_socket_that_fills_brings_no_update_early():
    """A quote that the client asked for goes out as its socket drains, once and with the newest price.
    Updates of other symbols wait for the release.
    """
    asked, other = Symbol("A"), Symbol("B")
    rig = Rig()
    rig.outbox.set_throttle(1.0)
    block(rig)
    rig.outbox.send_current(asked)
    for symbol in (asked, other):
        rig.outbox.conflate(symbol.update().source)
    rig.drain()
    assert rig.sock.sent == [b"first", b"A quote 1"]
    rig.outbox.release()
    assert rig.sock.sent[2:] == [b"B quote 1"]


def test_symbol_that_moves_again_keeps_its_place():
    """The symbol that is unsent for longest comes first, so that none waits behind quick ones."""
    first, second = Symbol("A"), Symbol("B")
    rig = Rig()
    block(rig)
    for symbol in (first, second, second, first):
        rig.outbox.conflate(symbol.update().source)
    rig.drain()
    assert rig.sock.sent[1:] == [b"A quote 2", b"B quote 2"]


@pytest.mark.parametrize(
    ("before", "interval"), [(0.0, 0.25), (0.0, 1.0), (0.25, 60.0), (0.25, 0.0), (0.0, 0.0)]
)
def test_throttle_may_change_while_the_socket_is_full(before, interval):
    """From then on the new interval counts: updates wait for the release, or only for the socket."""
    symbol = Symbol("A")
    rig = Rig()
    rig.outbox.set_throttle(before)
    block(rig)
    rig.outbox.set_throttle(interval)
    rig.outbox.conflate(symbol.update().source)
    rig.drain()
    assert rig.sock.sent[1:] == ([] if interval else [b"A quote 1"])
    rig.outbox.conflate(symbol.update().source)
    rig.outbox.release()
    assert rig.sock.sent[-1] == (b"A quote 2" if interval else b"A quote 1")


@pytest.mark.parametrize(("before", "interval"), [(0.0, 1.0), (0.25, 60.0), (0.25, 0.0)])
def test_throttle_counts_for_what_is_owed_already(before, interval):
    """The client hears no sooner than it asked, and with zero as soon as the socket drains."""
    symbol = Symbol("A")
    rig = Rig()
    rig.outbox.set_throttle(before)
    block(rig)
    rig.outbox.conflate(symbol.update().source)
    rig.outbox.set_throttle(interval)
    rig.drain()
    assert rig.sock.sent[1:] == ([] if interval else [b"A quote 1"])
    rig.outbox.release()
    assert rig.sock.sent[1:] == [b"A quote 1"]


@pytest.mark.parametrize("end", ["answered", "abandoned"])
async def test_client_is_read_again_once_its_answers_are_sent(nursery, end):
    """The session waits for answers only, as quotes may be pending for as long as prices move."""
    rig = Rig()
    await rig.outbox.wait_answered()
    block(rig)
    rig.outbox.send(pong_frame(b"second"))
    rig.outbox.send_many([Symbol("A", DRAIN_BYTES), Symbol("B")])
    done = trio.Event()

    async def wait() -> None:
        await rig.outbox.wait_answered()
        done.set()

    nursery.start_soon(wait)
    for room in (0, 3, 5):
        rig.sock.room = room
        rig.outbox.write_backlog()
        await trio.testing.wait_all_tasks_blocked()
        assert not done.is_set()
    if end == "answered":
        rig.sock.room = PLENTY
        rig.outbox.write_backlog()
        assert rig.outbox.blocked
    else:
        rig.outbox.abandon()
    await trio.testing.wait_all_tasks_blocked()
    assert done.is_set()
    await rig.outbox.wait_answered()


def test_answer_takes_the_place_of_a_held_update():
    """A client that asks for a quote does not get it once more with the release."""
    symbol = Symbol("A")
    rig = Rig()
    rig.outbox.set_throttle(1.0)
    rig.outbox.conflate(symbol.update().source)
    block(rig)
    rig.outbox.send_many([symbol])
    rig.drain()
    rig.outbox.release()
    assert rig.sock.sent == [b"first", b"A quote 1"]


@pytest.mark.parametrize(
    ("seconds", "sizes"),
    [
        (4.0, [1024, 256, 256]),
        (0.5, [1024, 409, 256]),
        (0.25, [1024, 819, 655, 524, 419, 335, 268, 256]),
        (0.1875, [1024, 1092, 1164, 1241]),
        (0.0625, [1024, 2048, 4096, 8192, 16384, 16384]),
    ],
)
async def test_slow_client_is_given_as_much_as_it_reads_in_a_moment(autojump_clock, seconds, sizes):
    """An answer waits behind the bytes that the kernel has. So it gets what the client reads in
    0.2 s, measured over half a second or more, and at most twice as much as before.
    """
    with socket.socket() as sock:
        size = WriteSize(sock)
        seen = [size.limit]
        while len(seen) < len(sizes):
            measured = 0.0
            while measured < 0.5:
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == size.limit
                await trio.sleep(seconds)
                measured += seconds
                size.wrote()
            seen.append(size.limit)
        assert seen == sizes
        size.restore()
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == DRAIN_BYTES
