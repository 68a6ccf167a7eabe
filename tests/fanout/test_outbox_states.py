"""An outbox on a socket whose room the test sets: the table of states, and no byte is lost."""

from typing import Any, cast

import pytest
import trio

from server.fanout.backlog import DRAIN_BYTES
from server.fanout.frame import pong_frame
from server.fanout.outbox import WRITE_FRAMES
from server.fanout.outbox_state import TRANSITIONS, Event, State
from tests.fanout.rig import CLOSE, PLENTY, Rig, Symbol, block, in_state


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
