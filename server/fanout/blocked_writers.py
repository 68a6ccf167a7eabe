"""Tasks that go on writing to full sockets, and give up sockets that stay full.

Each blocked outbox has a task, and no other outbox does. The task's circuit breaker (breaker.py)
says how long it waits and when it gives up.
"""

import fcntl
import socket
import sys
import termios
from collections import Counter

import trio

from server.fanout.breaker import Breaker, BreakerPolicy, BreakerState
from server.fanout.outbox import Outbox


class BlockedWriters:
    """Owned by the hub, which sets `tasks` when it starts. `breakers` counts those not closed."""

    def __init__(self, policy: BreakerPolicy) -> None:
        self.tasks: trio.Nursery
        self.breakers: Counter[BreakerState] = Counter()
        self._policy = policy

    def start(self, outbox: Outbox) -> None:
        """Write to `outbox` whenever its socket has room, until it is not blocked any more."""
        self.tasks.start_soon(self._drain, outbox)

    async def _drain(self, outbox: Outbox) -> None:
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

    async def _attempt(self, outbox: Outbox, breaker: Breaker) -> None:
        if breaker.state is BreakerState.OPEN:
            # Nothing is sent meanwhile, so only the connection's end can drain the outbox.
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
    """Return the bytes in the send buffer that the peer's kernel has not taken (tcp(7), SIOCOUTQ)."""
    if sock.fileno() == -1:
        raise trio.ClosedResourceError
    return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
