"""One connection after the upgrade: reads what the client sends until the connection is over.

The session is a single task. What it sends goes through its outbox; while that is blocked no further
command is read, so a client that does not read its answers cannot pile them up here.
"""

import random
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import trio
from msgspec import UNSET, UnsetType
from wsproto.frame_protocol import CloseReason, Frame, Opcode, ParseFailed

from server.config.redaction import redact
from server.fanout.breaker import BreakerState
from server.fanout.frame import PING_FRAME, close_frame, pong_frame, text_frame
from server.fanout.topic import Topic, full_quotes
from server.gateway.auth import Identity
from server.gateway.budgets import COMMAND
from server.gateway.closing import ABNORMAL, NO_STATUS, Close
from server.gateway.commands import execute, subscribe_deferred
from server.gateway.handshake import EVERYTHING
from server.gateway.inbound import Inbound, MessageTooBig, is_pong
from server.gateway.lifecycle import Event, State
from server.gateway.limits import SYMBOLS_A_COMMAND
from server.gateway.sockets import close, receive_nowait
from server.quotes.messages import (
    Ack,
    BadCommand,
    Command,
    CommandId,
    Error,
    ErrorCode,
    Reconnect,
    Subscribe,
    Throttle,
    encode,
    parse_command,
    readable_id,
)

if TYPE_CHECKING:
    from server.gateway.gateway import Gateway

PARSE_FAILURES = {
    CloseReason.INVALID_FRAME_PAYLOAD_DATA: Close.INVALID_UTF8,
    CloseReason.MESSAGE_TOO_BIG: Close.TOO_BIG,
}
"""What the decoder found wrong, but for errors of protocol."""

RECEIVE_BYTES = 4 * 1024
"""Bytes read from a socket at once; as 680 empty pings they take 15 ms, then others get their turn."""

TOO_MUCH_IN_ALL = "too many commands of all your connections and requests together, slow down"

MAX_MESSAGE = 300
"""Characters of an error's message, which may quote the command that was wrong."""

CLOSE_TIMEOUT = 2.0
"""Seconds a client has to answer a close frame."""


class Session:
    """Owned by its connection's task, which calls `run` once; others may call `close`. `gateway` is
    what all sessions share.

    `beat_at`, `heard`, `unanswered` and `quiet_beats` are what the heartbeat knows of the client:
    when the next beat is due in trio's time, whether more than a pong came since the last beat, how
    many pings it owes an answer to, and how many beats in a row nothing came or went.
    """

    __slots__ = (
        "_deflate",
        "_discard_input",
        "_heard_close",
        "_inbound",
        "_received",
        "_sock",
        "beat_at",
        "close_code",
        "deadline",
        "deferred",
        "everything",
        "gateway",
        "heard",
        "identity",
        "lost",
        "outbox",
        "quiet_beats",
        "state",
        "topics",
        "unanswered",
    )

    def __init__(
        self, gateway: "Gateway", sock: socket.socket, identity: Identity, received: bytes,
        *, deflate: bool = False,
    ) -> None:  # fmt: skip
        """`received` is what came right behind the request; `deflate`: compression is negotiated."""
        self.gateway = gateway
        self._sock = sock
        self._received = received
        self._deflate = deflate
        self._discard_input = False
        self._inbound: Inbound | None = None
        self._heard_close = False
        self.state = State.CONNECTING
        self.identity = identity
        self.outbox = gateway.hub.attach(sock, deflate=deflate)
        self.outbox.owner = self
        self.topics: dict[Topic, None] = {}  # a third of a set's memory
        self.everything = False
        self.close_code = ABNORMAL
        self.lost = False
        self.deferred: Subscribe | None = None
        self.deadline = float("inf")
        self.beat_at = float("inf")
        self.heard = True
        self.unanswered = 0
        self.quiet_beats = 0

    async def run(self) -> None:
        """Serve the client until it is gone. Errors: OSError, ClosedResourceError."""
        received, self._received = self._received, b""
        if received:
            await self._take(received)
        while not (self._heard_close or self.over):
            # Not `receive`, whose coroutine would be kept by ten thousand that only listen.
            await self.gateway.poller.wait_readable(self._sock)
            if self.over:
                return
            data = receive_nowait(self._sock, RECEIVE_BYTES)
            if data == b"":
                return
            if data:
                await self._take(data)
        await self.outbox.wait_drained()  # for the answer to its close, until the deadline

    @property
    def closing(self) -> bool:
        """Whether a close frame was sent, or the connection is over."""
        return self.state is State.DRAINING or self.over

    @property
    def over(self) -> bool:
        """Whether the session has ended."""
        return self.state is State.CLOSED

    def on(self, event: Event) -> None:
        """Change the state as the table says."""
        self.state = self.gateway.pool.move(self.state, event)

    def end(self) -> None:
        """Let go of everything the session holds but the socket."""
        self.gateway.deadlines.clear(self)
        self.gateway.hub.detach(self.outbox, self.topics)

    def renew(self, identity: Identity) -> None:
        """Go on until `identity` expires."""
        self.identity = identity
        self.gateway.heartbeat.renew(self)

    def subscribe(self, topics: list[Topic]) -> None:
        """Send the updates of `topics` from their present version on."""
        for topic in topics:
            self.gateway.hub.subscribe(self.outbox, topic)
            self.topics[topic] = None

    def subscribe_everything(self) -> list[Topic]:
        """Send all updates, in place of single subscriptions; the topics that were not among these."""
        hub = self.gateway.hub
        new = [topic for topic in hub.topics.values() if topic not in self.topics]
        hub.subscribe_everything(self.outbox, self.topics)
        self.topics.clear()
        self.everything = True
        return new

    def send_quotes(self, topics: list[Topic]) -> None:
        """Send the full quotes of `topics`."""
        self.gateway.hub.send_quotes(self.outbox, topics)

    def send_owed(self, topics: list[Topic]) -> None:
        """Send the full quotes of those of `topics` that are still to be sent."""
        self.outbox.flush()
        if owed := [each for each in topics if each.quote_due or self.outbox.is_pending(each)]:
            self.send(full_quotes(owed))

    def unsubscribe(self, topics: list[Topic]) -> None:
        """Send no more of `topics`."""
        for topic in topics:
            self.gateway.hub.unsubscribe(self.outbox, topic)
            self.topics.pop(topic, None)

    def unsubscribe_everything(self) -> None:
        """Send no more of anything."""
        self.everything = False
        self.gateway.hub.unsubscribe_everything(self.outbox)
        self.unsubscribe(list(self.topics))

    def send(self, message: object) -> None:
        """Send one message."""
        self.outbox.send(text_frame(encode(message)))

    def acknowledge(self, command: Command, symbols: list[str]) -> None:
        """Say that `command` was carried out on `symbols`."""
        self.gateway.pool.commands[command.action, "ok"] += 1
        self.send(Ack(command.action, symbols, command.id))

    def throttle(self, command: Throttle, interval: float) -> None:
        """Send each symbol at most once in `interval` seconds, and say what is granted."""
        self.gateway.pool.commands[command.action, "ok"] += 1
        interval = self.gateway.hub.throttle(self.outbox, interval)
        self.send(Ack(command.action, [], command.id, interval))

    def refuse(
        self, action: str, code: ErrorCode, message: str,
        id: CommandId | UnsetType = UNSET, symbols: list[str] | UnsetType = UNSET,
    ) -> None:  # fmt: skip
        """Say that a command, or a part of it, was not carried out."""
        self.gateway.pool.commands[action, code] += 1
        self.send(Error(code, redact(message[:MAX_MESSAGE]), id, symbols))

    def close(self, reason: Close) -> None:
        """Send the close frame and give the client CLOSE_TIMEOUT to answer it."""
        if self.closing:
            return
        code, text, fails, self.lost = reason.value
        self._finish(code, close_frame(code, text))
        if fails:  # RFC 6455 §7.1.7: what such a client goes on sending is not looked at
            self._discard_input = True
            if not self.outbox.blocked:
                with suppress(OSError):
                    self._sock.shutdown(socket.SHUT_WR)

    def send_away(self, spread_ms: int) -> None:
        """Tell the client to come back within a while, to whoever is there then, and close."""
        if not self.closing:
            self.send(Reconnect(random.randint(0, spread_ms)))
            self.close(Close.GOING_AWAY)

    def drop(self, reason: Close) -> None:
        """End at once, for a client that would not answer a close frame either."""
        self.close_code, self.lost = reason.value.code, reason.value.lost
        self._cut()

    def ping(self) -> None:
        """Ask the client whether it is there; anything it sends answers."""
        self.unanswered += 1
        self.outbox.send(PING_FRAME)

    def on_breaker(self, state: BreakerState) -> None:
        """The circuit breaker of a socket that takes nothing has changed."""
        self.gateway.breaker_log.log(state.value, f"user {self.identity.user}")
        if state is BreakerState.GIVEN_UP:
            self.close(Close.TOO_SLOW)

    def on_delisted(self, topic: Topic) -> None:
        """A symbol it is subscribed to is no more."""
        self.topics.pop(topic, None)

    def on_deadline(self) -> None:
        """A heartbeat is due, or the client did not close in time."""
        if self.closing:
            self._cut()
        else:
            self.gateway.heartbeat.beat(self)

    def _cut(self) -> None:
        """End, whatever the connection's task waits for."""
        self.gateway.end(self)
        self.gateway.poller.wake(self._sock)
        close(self._sock)

    def _finish(self, code: int, frame: bytes) -> None:
        self.on(Event.CLOSING)
        self.close_code = code
        self.unsubscribe_everything()
        self.outbox.close(frame)
        self.gateway.deadlines.set(self, trio.current_time() + CLOSE_TIMEOUT)

    async def _take(self, data: bytes) -> None:
        if self._discard_input:
            return
        answered, self.unanswered = self.unanswered, 0
        if self._inbound is None:
            if answered and is_pong(data):
                return
            self._inbound = Inbound(self.gateway.command_rate, deflate=self._deflate)
        inbound = self._inbound
        inbound.decoder.receive_bytes(data)
        try:
            for frame in inbound.decoder.received_frames():
                if self._discard_input:
                    return
                # Nothing is owed then: what is unsubscribed next is what the client has got.
                if self.outbox.blocked and frame.opcode is not Opcode.CLOSE:
                    await self.outbox.wait_drained()
                self._on_frame(frame, inbound)
                if self.deferred is not None:  # the next command is looked at when this one is done
                    command, self.deferred = self.deferred, None
                    await subscribe_deferred(self, command)
        except ParseFailed as error:
            self._discard_input = True  # also if it was told to go before
            self.close(PARSE_FAILURES.get(error.code, Close.PROTOCOL_ERROR))

    def _on_frame(self, frame: Frame, inbound: Inbound) -> None:
        if frame.opcode is Opcode.CLOSE:
            self._on_close(int(frame.payload[0]))
        elif self.closing:
            return
        elif frame.opcode is Opcode.TEXT:
            self.heard = True
            self._on_text(str(frame.payload), frame, inbound)
        elif frame.opcode is Opcode.BINARY:
            self.close(Close.BINARY)
        elif self._is_in_time(inbound) and frame.opcode is Opcode.PING:
            self.heard = True
            # A ping is answered whatever the user's other connections do: without a pong, libraries
            # take the server for dead.
            self.gateway.budgets.commands.charge(self.identity.user, COMMAND)
            payload = bytes(frame.payload)  # type: ignore[arg-type]  # only a text's is a str
            self.outbox.send(pong_frame(payload))

    def _on_close(self, code: int) -> None:
        """The client's close frame: the answer to ours, or its own, which is echoed."""
        if not self.closing:
            self._finish(code, close_frame(None if code == NO_STATUS else code))
        self._heard_close = True

    def _on_text(self, text: str, frame: Frame, inbound: Inbound) -> None:
        """One piece of a message, a frame or the part of it that has come; pieces are added up to be
        refused before they are complete.
        """
        try:
            message = inbound.add(text, finished=frame.message_finished)
        except MessageTooBig:
            self.close(Close.TOO_BIG)
            return
        if message is not None:
            self._on_message(message, inbound)
        elif frame.frame_finished:
            self._is_in_time(inbound)

    def _on_message(self, text: str, inbound: Inbound) -> None:
        if not self._is_in_time(inbound):
            self.refuse("any", "rate_limited", "too many commands, slow down", readable_id(text))
            return
        commands = self.gateway.budgets.commands
        if commands.take(self.identity.user, COMMAND):
            self.refuse("any", "rate_limited", TOO_MUCH_IN_ALL, readable_id(text))
            self._count_flood(inbound)
            return
        try:
            command = parse_command(text)
        except BadCommand as error:
            self.refuse("any", error.code, str(error), error.id)
            if inbound.limit.too_many_bad(good=False):
                self.close(Close.BAD_COMMANDS)
            return
        inbound.limit.too_many_bad(good=True)
        symbols = self._symbols_of(command)
        inbound.limit.charge(symbols)
        commands.add_debt(self.identity.user, symbols // SYMBOLS_A_COMMAND)
        execute(self, command)

    def _symbols_of(self, command: Command) -> int:
        symbols: list[str] = getattr(command, "symbols", [])
        return len(self.gateway.hub.topics) if EVERYTHING in symbols else len(symbols)

    def _is_in_time(self, inbound: Inbound) -> bool:
        """Count a frame, whatever it holds, as parsing alone takes 20 µs; False if it came too fast."""
        if inbound.limit.allows():
            return True
        self._count_flood(inbound)
        return False

    def _count_flood(self, inbound: Inbound) -> None:
        """Count a frame that came too fast; close once that has gone on for too long."""
        if inbound.limit.is_flooded():
            self.close(Close.FLOODING)
