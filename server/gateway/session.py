"""One connection after the upgrade: reads what the client sends, and carries out the replies.

A session has a task only while it serves what its client sent: most clients only listen. It sends
through its outbox. While the outbox is blocked, the session reads no further command. So answers that
the client does not read cannot pile up.
"""

import random
import socket
from contextlib import suppress

import trio
from wsproto.frame_protocol import Frame, Opcode

from server.fanout.breaker import BreakerState
from server.fanout.frame import PING_FRAME, close_frame, message_frame
from server.fanout.topic import Topic
from server.gateway.auth import Identity
from server.gateway.closing import ABNORMAL, NO_STATUS, Close
from server.gateway.handshake import Admission
from server.gateway.lifecycle import Event, State
from server.gateway.opening import welcome
from server.gateway.pool import LATER_MS
from server.gateway.protocol import Phase, Protocol, is_pong, waits_its_turn
from server.gateway.services import Services
from server.gateway.sockets import close, receive_nowait
from server.gateway.subscriptions import (
    ClientClosed,
    LookUp,
    Publish,
    Renew,
    Reply,
    Subscriptions,
)
from server.quotes.messages import Ack, Error, Message, Pong, Reconnect, Subscribe, SubscribeBars
from server.quotes.view import JSON, View

RECEIVE_BYTES = 4 * 1024
"""Bytes read from a socket at once. As 680 empty pings they take 15 ms; then other tasks run."""

CLOSE_TIMEOUT = 2.0
"""Seconds a client has to answer a close frame."""

NEVER = float("inf")


class Session:
    """One client's connection, as `Connection` describes it to the others.

    Owned by its connection's task. The first one calls `begin`; each calls `run`, the last one then
    `end`. Between two tasks the poller owns it.
    """

    __slots__ = (
        "_deflate",
        "_protocol",
        "_received",
        "_services",
        "address",
        "beat_at",
        "close_code",
        "deadline",
        "heard",
        "identity",
        "lost",
        "opened_us",
        "outbox",
        "quiet_beats",
        "state",
        "subscriptions",
        "unanswered",
    )

    def __init__(
        self,
        services: Services,
        sock: socket.socket,
        identity: Identity,
        received: bytes = b"",
        *,
        view: View = JSON,
        deflate: bool = False,
    ) -> None:
        """`received`: what came right behind the request; `deflate`: compression was negotiated. The
        session gives `view` back at its end.
        """
        self._services = services
        self._received = received
        self._deflate = deflate
        self._protocol: Protocol | None = None
        self.state = State.CONNECTING
        self.identity = identity
        self.subscriptions = Subscriptions()
        self.outbox = services.hub.attach(sock, view, deflate=deflate)
        self.outbox.owner = self
        self.close_code = ABNORMAL
        self.lost = False
        self.opened_us = 0
        self.address = ""
        self.deadline = NEVER
        self.beat_at = NEVER
        self.heard = True
        self.unanswered = 0
        self.quiet_beats = 0

    def begin(self, admission: Admission) -> None:
        """Send what the request asked for, and the status or a drain if there is one. Never waits."""
        services = self._services
        services.heartbeat.start(self)
        if opening := self.outbox.view.opening():
            self.outbox.send(message_frame(opening, self.outbox.view))
        for reply in welcome(admission, self.subscriptions, services.context):
            self.carry_out(reply)
        if services.hub.status.is_news:
            self.outbox.send_current(services.hub.status)
        if services.pool.draining:
            self.send_away(LATER_MS)

    async def run(self) -> bool:
        """Take one read from the client. Return True if the poller now watches for more, and False if
        the client is gone. Errors: OSError, ClosedResourceError.
        """
        if not self.over:
            data, self._received = self._received, b""
            received = data or receive_nowait(self.outbox.sock, RECEIVE_BYTES)
            if received == b"":
                return False
            if received:
                await self._take(received)
        if not (self._client_closed or self.over):
            self._watch()
            return True
        # The answer to the client's close frame still has to go out, until the deadline.
        await self.outbox.wait_drained()
        return False

    def on_readable(self) -> bool:
        """Read once. Return whether `run` has to go on, as there is more than the answer to a ping."""
        try:
            received = receive_nowait(self.outbox.sock, RECEIVE_BYTES)
            if received is not None and not self._answers_ping(received):
                self._received = received
                return True
            self._watch()
        except OSError:
            # The client has reset the connection: `run` finds its end.
            return True
        return False

    def end(self) -> None:
        """Give back everything that the session holds, except the socket; harmless if done already."""
        if self.over:
            return
        self._services.deadlines.clear(self)
        self._services.hub.detach(self.outbox, self.subscriptions.topics)
        self._services.pool.remove(self)
        self._services.pool.views.release(self.outbox.view)

    @property
    def closing(self) -> bool:
        return self.state is State.DRAINING or self.over

    @property
    def over(self) -> bool:
        return self.state is State.CLOSED

    @property
    def _client_closed(self) -> bool:
        return self._protocol is not None and self._protocol.phase is Phase.CLOSED

    def ping(self) -> None:
        self.unanswered += 1
        self.outbox.send(PING_FRAME)

    def close(self, reason: Close) -> None:
        """Send the close frame and give the client CLOSE_TIMEOUT to answer it."""
        if self.closing:
            return
        closing = reason.value
        self.lost = closing.lost
        self._start_closing(closing.code, close_frame(closing.code, closing.reason))
        # RFC 6455 §7.1.7: all that such a client still sends is discarded.
        if closing.fails and not self.outbox.blocked:
            with suppress(OSError):
                self.outbox.sock.shutdown(socket.SHUT_WR)

    def send_away(self, spread_ms: int) -> None:
        if not self.closing:
            self._send(Reconnect(random.randint(0, spread_ms)))
            self.close(Close.GOING_AWAY)

    def drop(self, reason: Close) -> None:
        """End at once, as the client would not answer a close frame."""
        self.close_code, self.lost = reason.value.code, reason.value.lost
        self._cut()

    def on_breaker(self, state: BreakerState) -> None:
        """Log that the circuit breaker has changed, and close if it gives the client up."""
        self._services.breaker_log.log(state.value, f"user {self.identity.user}")
        if state is BreakerState.GIVEN_UP:
            self.close(Close.TOO_SLOW)

    def on_delisted(self, topic: Topic) -> None:
        """Forget the subscription to a symbol that was delisted."""
        self.subscriptions.topics.pop(topic, None)

    def on_renamed(self, old: Topic, new: Topic) -> None:
        """Go on with the symbol that took the place of a renamed one."""
        self.subscriptions.topics.pop(old, None)
        self.subscriptions.topics[new] = None

    def on_deadline(self) -> None:
        """Send a heartbeat, or end if the client did not close in time."""
        if self.closing:
            self._cut()
        else:
            self._services.heartbeat.beat(self)

    def carry_out(self, reply: Reply) -> None:
        """Do what a reply says."""
        match reply:
            case bytes():
                self.outbox.send(reply)
            case Ack() | Error() | Pong():
                self._send(reply)
            case Renew():
                self.identity = reply.identity
                self._services.heartbeat.renew(self)
            case Close():
                self.close(reply)
            case ClientClosed():
                self._echo(reply.code)
            case _:
                reply.deliver(self._services.hub, self.outbox)

    def _send(self, message: Message) -> None:
        view = self.outbox.view
        self.outbox.send(message_frame(view.encode(message), view))

    def _echo(self, code: int) -> None:
        """Answer the client's close frame, unless it is itself an answer."""
        if not self.closing:
            self._start_closing(code, close_frame(None if code == NO_STATUS else code))

    def _start_closing(self, code: int, frame: bytes) -> None:
        services = self._services
        services.pool.change(self, Event.CLOSING)
        self.close_code = code
        if self._protocol is not None:
            self._protocol.close()
        services.hub.bars.detach(self.outbox)
        services.hub.unsubscribe_everything(self.outbox)
        for topic in self.subscriptions.topics:
            services.hub.unsubscribe(self.outbox, topic)
        self.subscriptions.clear()
        self.outbox.close(frame)
        services.deadlines.set(self, trio.current_time() + CLOSE_TIMEOUT)

    def _cut(self) -> None:
        """End at once, even if the connection has a task that waits."""
        self.end()
        self._services.poller.wake(self.outbox.sock)
        close(self.outbox.sock)

    def _watch(self) -> None:
        self._services.poller.watch(self.outbox.sock, self)

    def _answers_ping(self, data: bytes) -> bool:
        """Return whether `data` only answers a ping. A client that sends other data gets a decoder."""
        answers = self._protocol is None and self.unanswered > 0 and is_pong(data)
        if answers:
            self.unanswered = 0
        return answers

    async def _take(self, data: bytes) -> None:
        protocol = self._protocol
        if (protocol is not None and protocol.failed) or self._answers_ping(data):
            return
        self.unanswered = 0
        if protocol is None:
            protocol = self._make_protocol()
        for frame in protocol.receive(data):
            # A client that does not read its answers gets no more of them. Quotes may be pending for
            # ever, if prices come faster than the client reads.
            if self.outbox.blocked and waits_its_turn(frame):
                await self.outbox.wait_answered()
            if self.over:
                return
            if not (isinstance(frame, Frame) and frame.opcode is Opcode.PONG):
                self.heard = True
            for reply in protocol.answer(frame):
                if isinstance(reply, LookUp | Publish):
                    await self._wait_for(reply)
                else:
                    self.carry_out(reply)

    async def _wait_for(self, reply: LookUp | Publish) -> None:
        """Carry out a reply that takes time. Only publishers' sessions publish."""
        if isinstance(reply, LookUp):
            await self._look_up(reply.command)

    def _make_protocol(self) -> Protocol:
        self._protocol = protocol = Protocol(
            self._services.context,
            self.identity.user,
            self.subscriptions,
            binary=self.outbox.view.binary,
            deflate=self._deflate,
        )
        if self.closing:
            protocol.close()
        return protocol

    async def _look_up(self, command: Subscribe | SubscribeBars) -> None:
        """Ask the store for the symbols of `command`. If the connection still goes on, answer it."""
        selector = self._services.context.selector
        selection = await selector.resolve(command.charged_symbols, self.identity.user)
        if not self.closing and self._protocol is not None:
            for reply in self._protocol.subscribe(command, selection):
                self.carry_out(reply)
