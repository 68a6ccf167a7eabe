"""Connections that wait are served when something comes for them, and only then."""

import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack

import pytest
import trio

from server.gateway.poller import Poller
from tests.processes import TIMEOUT


class Listener:
    """A connection with a client. It notes each time that a task serves it, and waits again until the
    client is gone.
    """

    def __init__(self, poller: Poller["Listener"], log: list["Listener"]) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.needs_task = True
        self.received = b""
        self.over = False
        self._poller = poller
        self._log = log
        poller.watch(self.ours, self)

    def on_readable(self) -> bool:
        received = self.ours.recv(1)
        self.received += received
        self.over = not received
        if not self.needs_task:
            self._poller.watch(self.ours, self)
        return self.needs_task

    async def serve(self) -> None:
        self._log.append(self)
        if not self.over and self.ours.fileno() != -1:
            self._poller.watch(self.ours, self)


Listen = Callable[[], Listener]


@pytest.fixture
async def poller(nursery: trio.Nursery) -> AsyncIterator[Poller[Listener]]:
    """A poller that runs."""
    poller = Poller(Listener.serve)
    nursery.start_soon(poller.run)
    yield poller
    poller.close()


@pytest.fixture
def log() -> list[Listener]:
    """The connections that were served, in their order."""
    return []


@pytest.fixture
def listen(poller: Poller[Listener], log: list[Listener]) -> Iterator[Listen]:
    """Makes connections."""
    with ExitStack() as stack:

        def listen() -> Listener:
            listener = Listener(poller, log)
            for sock in (listener.ours, listener.theirs):
                stack.enter_context(sock)
            return listener

        yield listen


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked(0.01)


async def test_only_those_are_served_that_have_something(listen, log):
    """Of a hundred that wait, each is served when its own client sends, again and again."""
    listeners = [listen() for _ in range(100)]
    await settle()
    for number in (7, 99, 7, 0):
        listeners[number].theirs.send(b"x")
        await settle()
    assert log == [listeners[number] for number in (7, 99, 7, 0)]


async def test_bytes_from_before_the_wait_count(poller, listen, log):
    """Data, or the connection's end, that came before the wait has the connection served as well."""
    listener = listen()
    poller.wake(listener.ours)
    listener.theirs.send(b"x")
    listener.theirs.close()
    await settle()
    assert listener.received == b"x"
    assert log == [listener] * 3


async def test_connection_that_needs_no_task_gets_none(listen, log):
    """A connection that took all that came starts no task, and waits again."""
    listener = listen()
    listener.needs_task = False
    for received in (b"y", b"yy"):
        listener.theirs.send(b"y")
        await settle()
        assert listener.received == received
    assert log == []


async def test_waiting_takes_no_task(listen):
    """A hundred connections that wait have no task."""
    await settle()
    before = trio.lowlevel.current_statistics().tasks_living
    for _ in range(100):
        listen()
    await settle()
    assert trio.lowlevel.current_statistics().tasks_living == before


async def test_closed_socket_makes_room_for_another(poller, listen, log):
    """A connection whose socket is closed is served. The next socket with its number can be watched."""
    listener = listen()
    await settle()
    number = listener.ours.fileno()
    poller.wake(listener.ours)
    listener.ours.close()
    await settle()
    assert log == [listener]
    with trio.fail_after(TIMEOUT):
        new = listen()
        assert new.ours.fileno() == number
        new.theirs.send(b"x")
        await settle()
    assert log == [listener, new]


async def test_poller_that_does_not_run_serves_nobody(log):
    """A connection that is woken after the poller's end does not disturb the end."""
    poller = Poller(Listener.serve)
    with trio.CancelScope() as scope:
        scope.cancel()
        await poller.run()
    listener = Listener(poller, log)
    poller.wake(listener.ours)
    listener.ours.close()
    listener.theirs.close()
    poller.close()
    await settle()
    assert log == []
