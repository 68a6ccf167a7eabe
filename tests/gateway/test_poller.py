"""Tasks that wait for their sockets are woken by what comes, and by nothing else."""

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack

import pytest
import trio

from server.gateway.poller import Poller
from tests.processes import TIMEOUT

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
async def poller(nursery: trio.Nursery) -> AsyncIterator[Poller]:
    """A poller that runs."""
    poller = Poller()
    nursery.start_soon(poller.run)
    yield poller
    poller.close()


@pytest.fixture
def connect() -> Iterator[Callable[[], Pair]]:
    """Makes pairs of sockets."""
    with ExitStack() as stack:

        def connect() -> Pair:
            one, other = socket.socketpair()
            return stack.enter_context(one), stack.enter_context(other)

        yield connect


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked(0.01)


async def woken(wait: Awaitable[None]) -> None:
    with trio.fail_after(TIMEOUT):
        await wait


async def test_only_those_are_woken_who_have_something(poller, connect, nursery):
    """Of a hundred that wait, each is woken by its own client, again and again."""
    pairs = [connect() for _ in range(100)]
    log: list[int] = []

    async def listen(number: int) -> None:
        ours, _ = pairs[number]
        while True:
            await poller.wait_readable(ours)
            ours.recv(1)
            log.append(number)

    for number in range(100):
        nursery.start_soon(listen, number)
    await settle()
    for number in (7, 99, 7, 0):
        pairs[number][1].send(b"x")
        await settle()
    assert log == [7, 99, 7, 0]
    nursery.cancel_scope.cancel()


async def test_what_was_there_before_wakes(poller, connect):
    """Data, or the connection's end, that came before the wait wakes the task as well."""
    ours, theirs = connect()
    theirs.send(b"x")
    await woken(poller.wait_readable(ours))
    assert ours.recv(1) == b"x"
    theirs.close()
    await woken(poller.wait_readable(ours))
    assert ours.recv(1) == b""


async def test_who_gave_up_is_not_woken(poller, connect):
    """A task that was cancelled is not woken, and may wait again."""
    ours, theirs = connect()
    with trio.move_on_after(0.01):
        await poller.wait_readable(ours)
    theirs.send(b"x")
    event = trio.Event()
    with trio.move_on_after(0.05) as sleep:
        await event.wait()
    assert sleep.cancelled_caught
    await woken(poller.wait_readable(ours))


async def test_closed_socket_makes_room_for_another(poller, connect, nursery):
    """A task whose socket is closed is woken. The next socket with that number can be waited for."""
    ours, _ = connect()
    over = trio.Event()

    async def listen() -> None:
        await poller.wait_readable(ours)
        over.set()

    nursery.start_soon(listen)
    await settle()
    number = ours.fileno()
    poller.wake(ours)
    ours.close()
    await woken(over.wait())
    new, theirs = connect()
    assert new.fileno() == number
    theirs.send(b"x")
    await woken(poller.wait_readable(new))
