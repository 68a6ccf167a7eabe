"""Tasks that go on writing to full sockets, and give up sockets that stay full.

Each blocked outbox has a task, and no other outbox does. The task's circuit breaker (breaker.py)
says how long it waits and when it gives up.
"""

import fcntl
import socket
import sys
import termios
from collections import Counter
from contextlib import suppress
from typing import NamedTuple

import trio

from server.fanout.backlog import DRAIN_BYTES
from server.fanout.breaker import Breaker, BreakerPolicy, BreakerState
from server.fanout.outbox import Outbox

SMALLEST_WRITE, FIRST_WRITE, LARGEST_WRITE = 256, 1024, DRAIN_BYTES
"""Bytes given to the kernel at once. An answer waits behind them, so a slow client gets little."""

DRAIN_TIME = 0.2
"""Seconds that a client should need for one write."""

MEASURED = 0.5
"""Seconds over which the speed of a client is measured: its kernel takes bytes in bursts."""


class WriteSize:
    """How much a blocked socket is given at once: `limit` bytes, by how fast its client reads."""

    def __init__(self, sock: socket.socket) -> None:
        self.limit = LARGEST_WRITE
        self._sock = sock
        self._set(FIRST_WRITE)
        self._since = trio.current_time()
        self._written = 0

    def wrote(self) -> None:
        """Note a write of `limit` bytes, and adapt. The limit grows twofold at most."""
        self._written += self.limit
        seconds = trio.current_time() - self._since
        if seconds >= MEASURED:
            size = min(2 * self.limit, int(self._written / seconds * DRAIN_TIME))
            self._set(max(SMALLEST_WRITE, min(LARGEST_WRITE, size)))
            self._since, self._written = trio.current_time(), 0

    def restore(self) -> None:
        """Give the kernel its usual amount again."""
        self._set(LARGEST_WRITE)

    def _set(self, limit: int) -> None:
        if limit != self.limit:
            self.limit = limit
            # A broken socket fails at the next write. Sockets other than TCP's have no such option.
            with suppress(OSError):
                self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, limit)


class Blocking(NamedTuple):
    """A blocked outbox: its breaker, and since when it is blocked, in trio's time."""

    breaker: Breaker
    since: float


class BlockedWriters:
    """Owned by the hub, which sets `tasks` when it starts. `breakers` counts those not closed.

    `blocked` has the blocked outboxes, for operators.
    """

    def __init__(self, policy: BreakerPolicy) -> None:
        self.tasks: trio.Nursery
        self.breakers: Counter[BreakerState] = Counter()
        self.blocked: dict[Outbox, Blocking] = {}
        self._policy = policy

    def start(self, outbox: Outbox) -> None:
        """Write to `outbox` whenever its socket has room, until it is not blocked any more."""
        self.tasks.start_soon(self._drain, outbox)

    async def _drain(self, outbox: Outbox) -> None:
        breaker, size = Breaker(self._policy), WriteSize(outbox.sock)
        self.blocked[outbox] = blocking = Blocking(breaker, trio.current_time())
        try:
            while outbox.blocked:
                before = breaker.state
                await self._attempt(outbox, breaker, size)
                if breaker.state is not before:
                    self._count(before, -1)
                    self._count(breaker.state, 1)
                    if outbox.owner is not None:
                        outbox.owner.on_breaker(breaker.state)
            size.restore()
        except (OSError, trio.ClosedResourceError):
            outbox.abandon()
        finally:
            self._count(breaker.state, -1)
            # It may be blocked again already, with a task of its own.
            if self.blocked.get(outbox) is blocking:
                del self.blocked[outbox]

    async def _attempt(self, outbox: Outbox, breaker: Breaker, size: WriteSize) -> None:
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
            outbox.write_backlog(size.limit)
            size.wrote()
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
