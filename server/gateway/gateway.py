"""The streaming server: accepts connections and sends clients away when it stops.

A task for each connection does the handshake. The connection then has a task only while its session
serves what the client has sent.
"""

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
from server.gateway.commands import ClientContext
from server.gateway.connection import Connection
from server.gateway.dead_connections import DeadConnections
from server.gateway.deadlines import DeadlineWheel
from server.gateway.deflate import negotiate
from server.gateway.directory import Directory
from server.gateway.handshake import (
    Admission,
    HandshakePolicy,
    accept_and_close,
    accept_websocket,
    closes_refused,
)
from server.gateway.handshake_pacer import HandshakePacer
from server.gateway.heartbeat import Heartbeat
from server.gateway.limits import TokenBucket
from server.gateway.poller import Poller
from server.gateway.pool import Pool
from server.gateway.publisher import PublisherSession
from server.gateway.refusals import WITHOUT_USER, Refusal, response
from server.gateway.request import (
    NotHttp,
    Request,
    header_values,
    parse_head,
    read_head,
    read_request,
)
from server.gateway.sampling import Sampler
from server.gateway.selection import Selector
from server.gateway.services import Services
from server.gateway.session import Session
from server.gateway.sockets import (
    ACCEPT_PAUSE,
    OutOfResources,
    accept_nowait,
    close,
    ignore_new,
    send_last,
)
from server.intake.batch import Desk
from server.process.binding import BACKLOG

HANDSHAKE_TIMEOUT = 5.0
"""Seconds a client has to send its request, and again to take the answer to it."""

HANDSHAKES_PER_PASS = 4
"""Requests decided in one pass of the event loop: about a millisecond."""

HANDSHAKE_BURST_SECONDS = 10
"""Seconds' worth of handshakes that may come at once: by default, the clients of three full pools that
come back after a deploy. The pacer spreads them. The rate stops clients that reconnect all the time.
"""

DRAIN_TIMEOUT = 5.0
"""Seconds clients have to answer the close frame when the server stops."""

LAST_HANDSHAKES = 0.5
"""Seconds for TCP handshakes that have begun when this process leaves a port: the longest round trip.
"""

ACCEPT_BATCH = 64
"""Connections accepted in one pass of the event loop."""

log = structlog.get_logger()


class Attempt:
    """A handshake that has begun, with the values needed to answer and count a failure."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.address = ""
        self.connection = h11.Connection(h11.SERVER)
        self.method: bytes | None = None
        self.request: Request | None = None

    def refuse(self, refusal: Refusal) -> bytes:
        """Return the answer to a refused request, in the way that its client wants."""
        request = self.request
        if request and refusal.refused.value.close and closes_refused(request):
            return accept_and_close(self.connection, request, refusal)
        return response(refusal, self.connection, has_body=self.method != b"HEAD")


@dataclass(kw_only=True)
class Gateway:
    """Owns all connections and their tasks; `services` is what the sessions share.

    `command_rate` is in commands per second and connection, `max_symbols` per connection,
    `handshake_rate` per second in all, `ping_interval` and `idle_timeout` in seconds. At most
    `max_sockets` are open, including those before and after the session; others wait to be accepted.
    `failures` counts connections that ended by an exception. `desk` takes published prices.
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
    desk: Desk | None = None

    def __post_init__(self) -> None:
        context = ClientContext(
            Selector(self.hub.topics, self.directory, self.budgets),
            self.authenticator,
            self.budgets,
            self.max_symbols,
            self.command_rate,
            self.pool.commands,
        )
        self._policy = HandshakePolicy(
            context,
            self.pool,
            TokenBucket(self.handshake_rate, self.handshake_rate * HANDSHAKE_BURST_SECONDS),
            DeadConnections(self.pool),
            self.allowed_origins,
            self.desk is not None,
        )
        deadlines = DeadlineWheel()
        heartbeat = Heartbeat(
            self.pool, deadlines, self.hub.topics, self.ping_interval, self.idle_timeout
        )
        self.services = Services(
            hub=self.hub,
            pool=self.pool,
            context=context,
            deadlines=deadlines,
            heartbeat=heartbeat,
            poller=Poller(self._serve_session),
            breaker_log=Sampler("circuit breaker"),
        )
        self.failures = 0
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
        """Serve until `stop` or `retire` ends it.

        After the delay of `stop`, send all clients away within DRAIN_TIMEOUT. After `retire`, end when
        the last client is gone.

        Resource handling: listens on `listeners`, and always closes them and every connection.
        """
        self._listeners = listeners
        services = self.services
        with closing(services.poller), ExitStack() as after_tasks:
            after_tasks.callback(self._end_waiting)
            async with trio.open_nursery() as connections:
                connections.start_soon(services.deadlines.run)
                connections.start_soon(services.heartbeat.watch_clock, self.pool.sessions)
                connections.start_soon(services.poller.run)
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
        """Return the reasons why no client should be sent here now; none if it is ready."""
        if self._leaving:
            return ["draining"]
        return [] if self._listening else ["not listening yet"]

    def stop(self, delay: float) -> None:
        """Be unready at once, accept connections for `delay` more seconds, then let `serve` end."""
        self._leaving = True
        self._accepting.deadline = trio.current_time() + delay
        self._retirement.cancel()

    async def retire(self) -> None:
        """Leave the port to the processes that share it, without refusing a client.

        Return when no more connections come. `serve` ends when the last client is gone.
        """
        for listener in self._listeners:
            ignore_new(listener)
        await trio.sleep(LAST_HANDSHAKES)
        self._accepting.cancel()

    async def _accept(self, listener: socket.socket, connections: trio.Nursery) -> None:
        while True:
            await trio.lowlevel.wait_readable(listener)
            if problem := self._accept_waiting(listener, connections):
                log.error("cannot accept connections", problem=problem)
                await trio.sleep(ACCEPT_PAUSE)

    def _accept_waiting(self, listener: socket.socket, connections: trio.Nursery) -> str | None:
        """Start a task for each waiting connection. Return why further ones have to wait, if they do.

        Errors: OSError, if the listener itself is broken.
        """
        room = self.max_sockets - self._sockets
        if not room:
            return os.strerror(errno.EMFILE)
        # A client waits now. When the room is used up, perhaps none waits any more.
        for _ in range(min(room, ACCEPT_BATCH)):
            try:
                accepted = accept_nowait(listener)
            except OutOfResources as error:
                return str(error)
            if accepted is None:
                break
            self._sockets += 1
            # Not the address: the task would keep it, as long as the connection lasts.
            sock, _ = accepted
            connections.start_soon(self._serve_connection, sock, name="connection")
        return None

    async def _serve_session(self, session: Connection) -> None:
        await self._serve_connection(session.outbox.sock, session)

    async def _serve_connection(
        self, sock: socket.socket, session: Connection | None = None
    ) -> None:
        """Serve a connection until it waits for its client or ends: from its first byte, or a session
        that has waited. No error gets past here.
        """
        waits = False
        try:
            session = session or await self._open(Attempt(sock))
            waits = session is not None and await session.run()
        except (OSError, trio.ClosedResourceError):
            # The client is gone.
            pass
        except Exception:
            self.failures += 1
            log.exception("connection failed")
        finally:
            if not waits:
                if session is not None:
                    session.end()
                close(sock)
                self._sockets -= 1

    def _end_waiting(self) -> None:
        """End the sessions that are left, when no task runs any more."""
        for session in list(self.pool.sessions):
            session.end()
            close(session.outbox.sock)
            self._sockets -= 1

    async def _open(self, attempt: Attempt) -> Session | None:
        """Do the opening handshake; return None if the request does not become a connection."""
        try:
            with ExitStack() as undo:
                return await self._shake_hands(attempt, undo)
        except Refusal as refusal:
            refused = refusal.refused
            charged = refused in WITHOUT_USER
            self._count_failure(attempt, refused.value.code, str(refusal), charged=charged)
            await send_last(attempt.sock, attempt.refuse(refusal))
        except NotHttp as other:
            self._count_failure(attempt, other.reason, str(other))
        except trio.TooSlowError:
            message = f"no handshake in {HANDSHAKE_TIMEOUT:g} s"
            self._count_failure(attempt, "handshake_timeout", message)
        except (EOFError, OSError):
            message = "the client left during the handshake"
            self._count_failure(attempt, "handshake_aborted", message)
        return None

    async def _shake_hands(self, attempt: Attempt, undo: ExitStack) -> Session:
        """Admit a client and begin its session. `undo` gives back the places that it took on the way.

        Errors: Refusal, NotHttp, TooSlowError, EOFError, OSError.
        """
        self.pool.enter()
        undo.callback(self.pool.leave)
        peer, *_ = attempt.sock.getpeername()
        attempt.address = peer
        with trio.fail_after(HANDSHAKE_TIMEOUT):
            head, rest = await read_head(attempt.sock)
        await self._pacer.enter()
        try:
            parsed = parse_head(head, attempt.connection)
            attempt.method = parsed.method
            attempt.request = request = read_request(parsed, rest)
        except Refusal:
            # A trusted proxy passes on malformed requests, whose client is to be charged.
            forwarded = ",".join(header_values(head, b"x-forwarded-for"))
            attempt.address = self.proxies.client(attempt.address, forwarded)
            raise
        forwarded = request.headers.get("x-forwarded-for", "")
        attempt.address = self.proxies.client(peer, forwarded)
        admission = await self._policy.admit(request, attempt.address, undo)
        extension = None if admission.publisher else self._negotiate(request)
        with trio.fail_after(HANDSHAKE_TIMEOUT):
            await accept_websocket(
                attempt.sock, attempt.connection, request, admission.subprotocol, extension
            )
        session = self._session(admission, attempt.sock, request.rest, extension)
        if attempt.address != peer:
            session.address = attempt.address
        self.pool.add(session)
        # From here on the places are the session's to give back.
        undo.pop_all()
        try:
            session.begin(admission)
        except BaseException:
            session.end()
            raise
        return session

    def _session(
        self, admission: Admission, sock: socket.socket, rest: bytes, extension: str | None
    ) -> Session:
        if admission.publisher is None:
            return Session(
                self.services,
                sock,
                admission.identity,
                rest,
                view=admission.view,
                deflate=extension is not None,
            )
        assert self.desk is not None, "without a desk no publisher is admitted"
        return PublisherSession(self.services, sock, admission.identity, rest, self.desk)

    def _negotiate(self, request: Request) -> str | None:
        if not self.compression:
            return None
        return negotiate(request.headers.get("sec-websocket-extensions", ""))

    def _count_failure(
        self, attempt: Attempt, reason: str, message: str, *, charged: bool = True
    ) -> None:
        """Count a failed handshake. With `charged`, charge the client's address for it."""
        if charged:
            self.budgets.failures.charge(budget_key(attempt.address))
        self.pool.rejected[reason] += 1
        self._refused.log(reason, message, address=attempt.address)
