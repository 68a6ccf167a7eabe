"""Wakes the tasks of connections whose clients have said something.

What trio's own `wait_readable` keeps of a task that waits is 1.4 KB, a third of what a connection
costs: four coroutines, a closure, entries in tables. Here it is 0.4 KB: the sockets are in an epoll
of their own, whose descriptor is the only one that trio waits for.
"""

import select
import socket
from collections.abc import Awaitable, Callable
from typing import NoReturn

import trio

EVENTS = select.EPOLLIN | select.EPOLLONESHOT


class Poller:
    """Owned by the gateway, which runs and closes it; at most one task waits for each socket."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._waiting: dict[int, trio.lowlevel.Task] = {}

    def wait_readable(self, sock: socket.socket) -> Awaitable[None]:
        """Wait until there is something to read, an error, or `wake`: to be awaited at once, as any
        coroutine, but not one itself, which would be kept. Errors: OSError.
        """
        number = sock.fileno()
        try:
            self._epoll.modify(number, EVENTS)
        except FileNotFoundError:  # waited for the first time
            self._epoll.register(number, EVENTS)
        self._waiting[number] = trio.lowlevel.current_task()
        return trio.lowlevel.wait_task_rescheduled(  # noqa: ASYNC105 (whoever called awaits it)
            GivingUp(self._waiting, number)
        )

    def wake(self, sock: socket.socket) -> None:
        """Let the task that waits for `sock`, if any does, see that it will be closed now."""
        if task := self._waiting.pop(sock.fileno(), None):
            trio.lowlevel.reschedule(task)

    def close(self) -> None:
        """Nobody waits any more, nor will."""
        self._epoll.close()

    async def run(self) -> None:
        """Wake tasks until cancelled."""
        while True:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            for number, _ in self._epoll.poll(0):
                if task := self._waiting.pop(number, None):  # else it was cancelled meanwhile
                    trio.lowlevel.reschedule(task)


class GivingUp:
    """What trio calls when a task that waits is cancelled; a quarter of a closure's memory."""

    __slots__ = ("_number", "_waiting")

    def __init__(self, waiting: dict[int, trio.lowlevel.Task], number: int) -> None:
        self._waiting = waiting
        self._number = number

    def __call__(self, _: Callable[[], NoReturn]) -> trio.lowlevel.Abort:
        del self._waiting[self._number]
        return trio.lowlevel.Abort.SUCCEEDED
