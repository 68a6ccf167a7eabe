"""One connection after the upgrade: reads what the client sends until the connection is over.

The session is a single task. What it sends goes through its outbox; while that is blocked no further
command is read, so a client that does not read its answers cannot pile them up here.
"""

import random
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import trio
from msgspec import UNSET, UnsetType
from wsproto.frame_protocol import CloseReason, Frame, FrameProtocol, Opcode, ParseFailed

from server.fanout.frame import close_frame, pong_frame, text_frame
from server.fanout.topic import Topic
from server.gateway.auth import Identity
from server.gateway.closing import ABNORMAL, NO_STATUS, Close
from server.gateway.commands import NO_SUCH_SYMBOL, execute, subscribe_cold
from server.gateway.handshake import STORE_UNAVAILABLE, Selection
from server.gateway.limits import CommandLimit
from server.gateway.sockets import close, receive
from server.quotes.messages import (
    Ack,
    BadCommand,
    Command,
    CommandId,
    Error,
    ErrorCode,
    Reconnect,
    Subscribe,
    encode,
    parse_command,
    readable_id,
)

if TYPE_CHECKING:
    from server.gateway.gateway import Gateway

MAX_MESSAGE = 16 * 1024
"""Bytes of one message from a client; the largest command, 500 symbols, has a quarter of it."""

RECEIVE_BYTES = 4 * 1024
"""Bytes read from a socket at once; as 680 empty pings they take 15 ms, then others get their turn."""

CLOSE_TIMEOUT = 2.0
"""Seconds a client has to answer a close frame."""

RECONNECT_SPREAD_MS = 5000
"""Milliseconds over which clients that are sent away come back."""


class Session:
    """Owned by its connection's task, which calls `run` once; others may call `close`."""

    __slots__ = (
        "_closing",
        "_decoder",
        "_gateway",
        "_limit",
        "_message",
        "_message_size",
        "_over",
        "_received",
        "_sock",
        "close_code",
        "cold",
        "deadline",
        "everything",
        "identity",
        "outbox",
        "topics",
    )

    def __init__(
        self, gateway: "Gateway", sock: socket.socket, identity: Identity, received: bytes
    ) -> None:
        """`received` is what came right behind the request."""
        self._gateway = gateway
        self._sock = sock
        self._received = received
        self._decoder: FrameProtocol | None = FrameProtocol(client=False, extensions=[])
        self._limit = CommandLimit(gateway.command_rate)
        self._message: list[str] = []
        self._message_size = 0
        self._closing = False
        self._over = False
        self.identity = identity
        self.outbox = gateway.hub.attach(sock)
        self.topics: set[Topic] = set()
        self.everything = False
        self.close_code = ABNORMAL
        self.cold: Subscribe | None = None
        self.deadline = float("inf")

    @property
    def gateway(self) -> "Gateway":
        """What all sessions share."""
        return self._gateway

    async def run(self) -> None:
        """Serve the client until it is gone. Errors: OSError, ClosedResourceError."""
        received, self._received = self._received, b""
        await self._take(received)
        while not self._over and (data := await receive(self._sock, RECEIVE_BYTES)):
            await self._take(data)

    @property
    def closing(self) -> bool:
        """Whether a close frame was sent."""
        return self._closing

    def begin(self, selection: Selection) -> None:
        """Send the snapshot asked for in the request, and what else is to be said on connecting."""
        self.renew(self.identity)
        if selection.everything:
            self.subscribe_everything()
        else:
            self.subscribe(selection.topics)
        if selection.unknown:
            self.refuse("connect", "unknown_symbol", NO_SUCH_SYMBOL, symbols=selection.unknown)
        if selection.unavailable:
            self.refuse(
                "connect", "store_unavailable", STORE_UNAVAILABLE, symbols=[*selection.unavailable]
            )
        if self._gateway.hub.status.message.status == "stale":
            self.outbox.send_current(self._gateway.hub.status)
        if self._gateway.pool.draining:
            self.send_away()

    def end(self) -> None:
        """Let go of everything the session holds but the socket."""
        self._gateway.deadlines.clear(self)
        self._gateway.hub.detach(self.outbox, self.topics)

    def renew(self, identity: Identity) -> None:
        """Go on until `identity` expires."""
        self.identity = identity
        lifetime = identity.expires_at - time.time()
        self._gateway.deadlines.set(self, trio.current_time() + lifetime)

    def subscribe(self, topics: list[Topic]) -> None:
        """Send the full quotes of `topics`, then their updates."""
        hub = self._gateway.hub
        for topic in topics:
            hub.subscribe(self.outbox, topic)
            self.topics.add(topic)
        hub.send_quotes(self.outbox, topics)

    def subscribe_everything(self) -> None:
        """Send all full quotes, then all updates; takes the place of single subscriptions."""
        hub = self._gateway.hub
        new = [topic for topic in hub.topics.values() if topic not in self.topics]
        hub.subscribe_everything(self.outbox, self.topics)
        hub.send_quotes(self.outbox, new)
        self.topics.clear()
        self.everything = True

    def unsubscribe(self, topics: list[Topic]) -> None:
        """Send no more of `topics`."""
        for topic in topics:
            self._gateway.hub.unsubscribe(self.outbox, topic)
            self.topics.discard(topic)

    def unsubscribe_everything(self) -> None:
        """Send no more of anything."""
        self.everything = False
        self._gateway.hub.unsubscribe_everything(self.outbox)
        self.unsubscribe(list(self.topics))

    def send(self, message: object) -> None:
        """Send one message."""
        self.outbox.send(text_frame(encode(message)))

    def acknowledge(self, command: Command, symbols: list[str]) -> None:
        """Say that `command` was carried out on `symbols`."""
        self._gateway.pool.commands[command.action, "ok"] += 1
        self.send(Ack(command.action, symbols, command.id))

    def refuse(
        self, action: str, code: ErrorCode, message: str,
        id: CommandId | UnsetType = UNSET, symbols: list[str] | UnsetType = UNSET,
    ) -> None:  # fmt: skip
        """Say that a command, or a part of it, was not carried out."""
        self._gateway.pool.commands[action, code] += 1
        self.send(Error(code, message, id, symbols))

    def close(self, reason: Close) -> None:
        """Send the close frame and give the client CLOSE_TIMEOUT to answer it."""
        if self._closing:
            return
        code, text, fails = reason.value
        self._finish(code, close_frame(code, text))
        if fails:  # RFC 6455 §7.1.7: what such a client goes on sending is not looked at
            self._decoder = None
            if not self.outbox.blocked:
                with suppress(OSError):
                    self._sock.shutdown(socket.SHUT_WR)

    def send_away(self) -> None:
        """Tell the client to come back after a while, to whoever is there then, and close."""
        if not self._closing:
            self.send(Reconnect(random.randint(0, RECONNECT_SPREAD_MS)))
            self.close(Close.GOING_AWAY)

    def on_deadline(self) -> None:
        """The token expired, or a closing connection was not closed by the client in time."""
        if self._closing:
            self._over = True
            close(self._sock)
        else:
            self.close(Close.TOKEN_EXPIRED)

    def _finish(self, code: int, frame: bytes) -> None:
        self._closing = True
        self.close_code = code
        self.unsubscribe_everything()
        self.outbox.close(frame)
        self._gateway.deadlines.set(self, trio.current_time() + CLOSE_TIMEOUT)

    async def _take(self, data: bytes) -> None:
        if self._decoder is None:
            return
        self._decoder.receive_bytes(data)
        try:
            for frame in self._decoder.received_frames():
                # Nothing is owed then: what is unsubscribed next is what the client has got.
                if self.outbox.blocked and frame.opcode is not Opcode.CLOSE:
                    await self.outbox.wait_drained()
                self._on_frame(frame)
                if self.cold is not None:  # the next command is looked at when this one is done
                    command, self.cold = self.cold, None
                    await subscribe_cold(self, command)
        except ParseFailed as error:
            invalid_text = error.code == CloseReason.INVALID_FRAME_PAYLOAD_DATA
            self.close(Close.INVALID_UTF8 if invalid_text else Close.PROTOCOL_ERROR)

    def _on_frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.CLOSE:
            self._on_close(int(frame.payload[0]))
        elif self._closing:
            return
        elif frame.opcode is Opcode.TEXT:
            self._on_text(str(frame.payload), finished=frame.message_finished)
        elif frame.opcode is Opcode.BINARY:
            self.close(Close.BINARY)
        elif self._is_in_time() and frame.opcode is Opcode.PING:
            self.outbox.send(pong_frame(bytes(frame.payload)))  # type: ignore[arg-type]

    def _on_close(self, code: int) -> None:
        """The client's close frame: the answer to ours, or its own, which is echoed."""
        if not self._closing:
            self._finish(code, close_frame(None if code == NO_STATUS else code))
        self._over = True

    def _on_text(self, text: str, *, finished: bool) -> None:
        """One piece of a message; pieces are added up to be refused before they are complete."""
        self._message_size += len(text) if text.isascii() else len(text.encode())
        if self._message_size > MAX_MESSAGE:
            self.close(Close.TOO_BIG)
        elif not finished:
            self._is_in_time()
            self._message += [text] if text else []
        else:
            message = "".join([*self._message, text])
            self._message.clear()
            self._message_size = 0
            self._on_message(message)

    def _on_message(self, text: str) -> None:
        if not self._is_in_time():
            self.refuse("any", "rate_limited", "too many commands, slow down", readable_id(text))
            return
        try:
            command = parse_command(text)
        except BadCommand as error:
            self.refuse("any", error.code, str(error), error.id)
            if self._limit.is_hopeless(good=False):
                self.close(Close.BAD_COMMANDS)
            return
        self._limit.is_hopeless(good=True)
        execute(self, command)

    def _is_in_time(self) -> bool:
        """Count a frame, whatever it holds, as parsing alone takes 20 µs; False if it came too fast."""
        if self._limit.allows():
            return True
        if self._limit.is_flooded():
            self.close(Close.FLOODING)
        return False
