"""The streaming server: accepts connections, lets them in, runs each as one task, sends them away."""

import errno
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

import h11
import structlog
import trio

from server.fanout.hub import Hub
from server.gateway.addresses import Proxies, budget_key
from server.gateway.auth import Authenticator
from server.gateway.budgets import Budgets
from server.gateway.dead_connections import DeadConnections
from server.gateway.deadlines import DeadlineWheel
from server.gateway.deflate import negotiate
from server.gateway.directory import Directory
from server.gateway.handshake import HandshakePolicy, accept_websocket
from server.gateway.handshake_pacer import HandshakePacer
from server.gateway.heartbeat import Heartbeat
from server.gateway.limits import TokenBucket
from server.gateway.opening import begin
from server.gateway.poller import Poller
from server.gateway.pool import Pool
from server.gateway.refusals import OF_NOBODY, Refusal, response
from server.gateway.request import (
    MAX_HEAD,
    NotHttp,
    Request,
    parse_head,
    read_head,
    read_request,
)
from server.gateway.sampling import Sampler
from server.gateway.session import Session
from server.gateway.sockets import (
    ACCEPT_PAUSE,
    OUT_OF_RESOURCES,
    close,
    ignore_new,
    receive,
    send_all,
)
from server.process.binding import BACKLOG

HANDSHAKE_TIMEOUT = 5.0
"""Seconds a client has to send its request, and again to take the answer."""

HANDSHAKES_PER_PASS = 4
"""Requests decided between two looks at the rest of the program: about a millisecond."""

HANDSHAKE_BURST_SECONDS = 10
"""Seconds' worth of handshakes taken at once: by default that is three whole pools that come back
after a deploy, which the pacer spreads. Whoever reconnects over and over meets the rate.
"""

LINGER_TIMEOUT = 1.0
"""Seconds a refused client has to read the answer and close; closing at once could destroy it."""

DRAIN_TIMEOUT = 5.0
"""Seconds clients have at a shutdown to answer the close frame."""

LAST_HANDSHAKES = 0.5
"""Seconds for TCP handshakes under way when a port is left to others: a round trip around the world."""

ACCEPT_BATCH = 64
"""Connections accepted between two looks at the rest of the program."""

log = structlog.get_logger()


@dataclass(kw_only=True)
class Gateway:
    """What the connections share, and the tasks that run them.

    `command_rate` is in commands per second and connection, `max_symbols` per connection,
    `handshake_rate` per second in all, `ping_interval` and `idle_timeout` in seconds. `max_sockets`
    may be open, with those that are no connection yet or any more; others wait to be accepted.
    """

    hub: Hub
    pool: Pool
    authenticator: Authenticator
    directory: Directory
    max_symbols: int
    command_rate: int
    allowed_origins: Sequence[str] = ()
    handshake_rate: int = 3000
    ping_interval: float = 20.0
    idle_timeout: float = 1800.0
    compression: bool = False
    max_sockets: int = sys.maxsize
    budgets: Budgets = field(default_factory=Budgets)
    proxies: Proxies = field(default_factory=Proxies)
    deadlines: DeadlineWheel = field(default_factory=DeadlineWheel)
    poller: Poller = field(default_factory=Poller)

    def __post_init__(self) -> None:
        self._policy = HandshakePolicy(
            self.authenticator,
            self.pool,
            TokenBucket(self.handshake_rate, self.handshake_rate * HANDSHAKE_BURST_SECONDS),
            DeadConnections(self.pool),
            self.hub.topics,
            self.directory,
            self.max_symbols,
            self.allowed_origins,
            self.budgets,
        )
        self.heartbeat = Heartbeat(
            self.deadlines, self.hub.topics, self.ping_interval, self.idle_timeout
        )
        self.failures = 0
        self.breaker_log = Sampler("circuit breaker")
        self._sockets = 0
        self._listening = False
        self._leaving = False
        self._listeners: list[socket.socket] = []
        self._retirement = trio.CancelScope()
        self._accepting = trio.CancelScope()
        self._refused = Sampler("connection refused")
        self._pacer = HandshakePacer(HANDSHAKES_PER_PASS)

    async def serve(
        self,
        listeners: list[socket.socket],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until `stop` is called and its delay is over, then send all clients away, which takes
        DRAIN_TIMEOUT at most; or until `retire` was called and the last client is gone.

        Resource handling: listens on `listeners`; closes them and every connection, always.
        """
        self._listeners = listeners
        with closing(self.poller):
            async with trio.open_nursery() as connections:
                connections.start_soon(self.deadlines.run)
                connections.start_soon(self.heartbeat.watch_clock, self.pool.sessions)
                connections.start_soon(self.poller.run)
                connections.start_soon(self._pacer.run)
                try:
                    with self._accepting:
                        async with trio.open_nursery() as accepting:
                            for listener in listeners:
                                listener.listen(BACKLOG)
                                accepting.start_soon(self._accept, listener, connections)
                            self._listening = True
                            task_status.started()
                finally:
                    for listener in listeners:
                        close(listener)
                with self._retirement:
                    await self.pool.wait_empty()
                with trio.move_on_after(DRAIN_TIMEOUT):
                    await self.pool.drain()
                connections.cancel_scope.cancel()

    def unready(self) -> list[str]:
        """Why no client should be sent here now; empty if one should."""
        if self._leaving:
            return ["draining"]
        return [] if self._listening else ["not listening yet"]

    def stop(self, delay: float) -> None:
        """Be unready at once, accept connections for `delay` more seconds, then let `serve` finish."""
        self._leaving = True
        self._accepting.deadline = trio.current_time() + delay
        self._retirement.cancel()

    async def retire(self) -> None:
        """Leave the port to those who share it, refusing nobody, and let `serve` finish when the last
        client is gone. Returns when no more connections come.
        """
        for listener in self._listeners:
            ignore_new(listener)
        await trio.sleep(LAST_HANDSHAKES)
        self._accepting.cancel()

    async def _accept(self, listener: socket.socket, connections: trio.Nursery) -> None:
        while True:
            await trio.lowlevel.wait_readable(listener)
            try:
                for _ in range(ACCEPT_BATCH):
                    if self._sockets >= self.max_sockets:
                        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
                    sock, _ = listener.accept()
                    sock.setblocking(False)
                    self._sockets += 1
                    connections.start_soon(self._serve_connection, sock, name="connection")
            except BlockingIOError:
                continue
            except OSError as error:  # the peer was gone before it was accepted, or no descriptors
                if error.errno in OUT_OF_RESOURCES:
                    log.error("cannot accept connections", problem=error.strerror)
                    await trio.sleep(ACCEPT_PAUSE)

    async def _serve_connection(self, sock: socket.socket) -> None:
        """One connection from its first byte to its last. Nothing it does gets past here."""
        try:
            session = await self._open(sock)
            if session is not None:
                try:
                    await session.run()
                finally:
                    self.end(session)
        except (OSError, trio.ClosedResourceError):
            pass  # the client is gone
        except Exception:
            self.failures += 1
            log.exception("connection failed")
        finally:
            close(sock)
            self._sockets -= 1

    async def _open(self, sock: socket.socket) -> Session | None:
        """Do the opening handshake; None if there is to be no connection."""
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=2 * MAX_HEAD)
        parsed: h11.Request | None = None
        address = ""
        try:
            with ExitStack() as undo:
                self.pool.enter()
                undo.callback(self.pool.leave)
                address = sock.getpeername()[0]
                with trio.fail_after(HANDSHAKE_TIMEOUT):
                    head, rest = await read_head(sock)
                await self._pacer.enter()
                parsed = parse_head(head, connection)
                request = read_request(parsed, rest)
                forwarded = request.headers.get("x-forwarded-for", "")
                address = self.proxies.client(address, forwarded)
                admission = await self._policy.admit(request, address, undo)
                extension = self._negotiate(request)
                with trio.fail_after(HANDSHAKE_TIMEOUT):
                    await accept_websocket(sock, connection, request, extension)
                session = Session(
                    self, sock, admission.identity, request.rest, deflate=extension is not None
                )
                self.pool.add(session)
                undo.pop_all()  # the places are the session's now
                undo.callback(self.end, session)
                begin(session, admission)
                undo.pop_all()
                return session
        except Refusal as refusal:
            if refusal.refused in OF_NOBODY:
                self._charge_failure(address)
            self._count_refusal(refusal.refused.value.code, str(refusal), address)
            with trio.move_on_after(LINGER_TIMEOUT):
                has_body = parsed is None or parsed.method != b"HEAD"
                await send_all(sock, response(refusal, connection, has_body=has_body))
                sock.shutdown(socket.SHUT_WR)
                while await receive(sock, MAX_HEAD):
                    pass
        except NotHttp as other:
            self._charge_failure(address)
            self._count_refusal(other.reason, str(other), address)
        except trio.TooSlowError:
            self._charge_failure(address)
            message = f"no handshake in {HANDSHAKE_TIMEOUT:g} s"
            self._count_refusal("handshake_timeout", message, address)
        except (EOFError, OSError):
            self._charge_failure(address)
            message = "the client left during the handshake"
            self._count_refusal("handshake_aborted", message, address)
        return None

    def _negotiate(self, request: Request) -> str | None:
        if not self.compression:
            return None
        return negotiate(request.headers.get("sec-websocket-extensions", ""))

    def end(self, session: Session) -> None:
        """Let go of what a session holds; harmless if that was done already."""
        if session.over:
            return
        session.end()
        self.pool.remove(session)

    def _charge_failure(self, address: str) -> None:
        self.budgets.failures.charge(budget_key(address))

    def _count_refusal(self, reason: str, message: str, address: str) -> None:
        self.pool.rejected[reason] += 1
        self._refused.log(reason, message, address=address)
