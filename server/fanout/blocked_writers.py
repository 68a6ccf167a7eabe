"""Goes on writing to sockets that were full, and gives up those that stay so.

A task for each blocked outbox and for no other. How long it waits, and when it gives up, is its
circuit breaker's to say (breaker.py).
"""

import fcntl
import socket
import sys
import termios
from collections import Counter
from typing import TYPE_CHECKING, Protocol

import trio

from server.fanout.breaker import Breaker, BreakerPolicy, BreakerState

if TYPE_CHECKING:
    from server.fanout.outbox import Outbox
    from server.fanout.topic import Topic


class Owner(Protocol):
    """The connection an outbox belongs to."""

    def on_breaker(self, state: BreakerState) -> None:
        """Called when the breaker of its outbox changes; GIVEN_UP asks it to end."""

    def on_delisted(self, topic: "Topic") -> None:
        """Called when a symbol that it is subscribed to is no more."""


class BlockedWriters:
    """Owned by the hub, which sets `tasks` once it runs; `breakers` counts those not closed."""

    def __init__(self, policy: BreakerPolicy) -> None:
        self.tasks: trio.Nursery
        self.breakers: Counter[BreakerState] = Counter()
        self._policy = policy

    def start(self, outbox: "Outbox") -> None:
        """Write on as soon as the socket has room."""
        self.tasks.start_soon(self._drain, outbox)

    async def _drain(self, outbox: "Outbox") -> None:
        breaker = Breaker(self._policy)
        try:
            while outbox.blocked:
                before = breaker.state
                await self._attempt(outbox, breaker)
                if breaker.state is not before:
                    self._count(before, -1)
                    self._count(breaker.state, 1)
                    if outbox.owner is not None:
                        outbox.owner.on_breaker(breaker.state)
        except (OSError, trio.ClosedResourceError):
            outbox.abandon()
        finally:
            self._count(breaker.state, -1)

    async def _attempt(self, outbox: "Outbox", breaker: Breaker) -> None:
        if breaker.state is BreakerState.OPEN:
            # Nothing is sent, so only the connection's end comes before.
            with trio.move_on_after(self._policy.recovery):
                await outbox.wait_drained()
            breaker.recovered()
            return
        unsent = _unsent(outbox.sock)
        with trio.move_on_after(self._policy.stall_timeout) as waiting:
            await trio.lowlevel.wait_writable(outbox.sock)
        if not waiting.cancelled_caught:
            outbox.write_backlog()
            breaker.went_out(everything=not outbox.blocked)
        elif _unsent(outbox.sock) >= unsent:
            breaker.stalled()
        else:
            breaker.trickled()

    def _count(self, state: BreakerState, change: int) -> None:
        if state is not BreakerState.CLOSED:
            self.breakers[state] += change


def _unsent(sock: socket.socket) -> int:
    """Bytes in the send buffer that the peer's kernel has not taken (tcp(7), SIOCOUTQ)."""
    if sock.fileno() == -1:
        raise trio.ClosedResourceError
    return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
