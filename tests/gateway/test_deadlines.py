"""The wheel of deadlines and the poller, by the turns that they leave to others."""

import socket
import time
from contextlib import closing

import trio

from server.gateway import deadlines
from server.gateway.deadlines import DeadlineWheel
from server.gateway.poller import Poller
from tests.gateway.test_pool import Turns
from tests.gateway.test_units import NEVER, Item


class Ender(Item):
    """Clears another item when it is called, as a connection may end another one."""

    other: Item

    def on_deadline(self) -> None:
        super().on_deadline()
        self._wheel.clear(self.other)


class Counter(Item):
    """Notes the turn in which it was called."""

    def __init__(self, wheel: DeadlineWheel, turns: Turns) -> None:
        super().__init__(wheel)
        self.turn = -1
        self._turns = turns

    def on_deadline(self) -> None:
        self.turn = self._turns.count


async def test_item_may_be_cleared_by_another_of_its_second(autojump_clock, nursery):
    """It is not called, and the others are."""
    wheel = DeadlineWheel()
    nursery.start_soon(wheel.run)
    ender, cleared, later = Ender(wheel), Item(wheel), Item(wheel)
    ender.other = cleared
    for item in (ender, cleared, later):
        wheel.set(item, 4.5)
    await trio.sleep(6)
    assert [len(item.calls) for item in (ender, cleared, later)] == [1, 0, 1]
    assert cleared.deadline == NEVER


async def test_clearing_one_leaves_the_others_of_its_second(autojump_clock, nursery):
    """They are called in time."""
    wheel = DeadlineWheel()
    nursery.start_soon(wheel.run)
    items = [Item(wheel) for _ in range(3)]
    for item in items:
        wheel.set(item, 4.5)
    wheel.clear(items[1])
    wheel.set(items[2], NEVER)
    await trio.sleep(6)
    assert [len(item.calls) for item in items] == [1, 0, 0]


async def test_others_have_their_turn_between_many_deadlines(monkeypatch, autojump_clock, nursery):
    """After each slice of them."""
    monkeypatch.setattr(deadlines, "CHECKPOINT_EVERY", 3)
    wheel, turns = DeadlineWheel(), Turns()
    items = [Counter(wheel, turns) for _ in range(8)]
    for item in items:
        wheel.set(item, 2.5)
    nursery.start_soon(wheel.run)
    await trio.sleep(4)
    assert [item.turn - items[0].turn for item in items] == [0, 0, 0, 1, 1, 1, 2, 2]


async def test_bytes_that_another_task_took_do_not_hold_the_loop_up():
    """The poller looks, finds nothing, and does not wait where it looks."""
    sock, client = socket.socketpair()

    class Listener:
        def on_readable(self) -> bool:
            return True

        async def serve(self) -> None:
            poller.watch(sock, self)

    poller = Poller(Listener.serve)
    with sock, client, closing(poller):
        sock.setblocking(False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(poller.run)
            poller.watch(sock, Listener())
            await trio.testing.wait_all_tasks_blocked()
            begun = time.perf_counter()
            for _ in range(30):
                client.send(b"x")
                await trio.lowlevel.checkpoint()
                sock.recv(10)
                await trio.lowlevel.checkpoint()
            assert time.perf_counter() - begun < 5
            # This one is not watched.
            poller.wake(client)
            nursery.cancel_scope.cancel()
