"""The protocol of one connection after the upgrade, without I/O: bytes from the client become replies.

As in h11 and websockets, the caller reads and writes. It gives bytes to `receive`, and each frame that
`receive` returns to `answer`. The replies tell the caller what to send and to do (subscriptions.py). No
method waits, so the tests need no socket, no task and no running clock.

Most clients only listen and answer pings. A session makes its `Protocol` only when the client sends
more than that, as it is a fifth of what a connection costs.
"""

from collections.abc import Callable, Iterator
from enum import Enum, auto

import trio
from wsproto.extensions import Extension
from wsproto.frame_protocol import CloseReason, Frame, FrameProtocol, Opcode, ParseFailed

from server.fanout.frame import MAX_CONTROL_PAYLOAD, pong_frame
from server.gateway.budgets import COMMAND, USER_SPENT
from server.gateway.closing import Close
from server.gateway.commands import ClientContext, Commands
from server.gateway.deflate import Inflate
from server.gateway.limits import SYMBOLS_A_COMMAND, CommandLimit
from server.gateway.selection import EVERYTHING, Selection
from server.gateway.subscriptions import Answer, ClientClosed, Replies, Subscriptions
from server.quotes.messages import (
    JSON_COMMANDS,
    MSGPACK_COMMANDS,
    BadCommand,
    Command,
    Subscribe,
)

MAX_MESSAGE = 16 * 1024
"""Bytes of one message from a client. The largest command, with 500 symbols, has a quarter of it."""

PARSE_FAILURES = {
    CloseReason.INVALID_FRAME_PAYLOAD_DATA: Close.INVALID_UTF8,
    CloseReason.MESSAGE_TOO_BIG: Close.TOO_BIG,
}
"""The close for each error of the decoder; others are a PROTOCOL_ERROR."""

_PONG = 0x8A
_MASKED = 0x80
_MASK_BYTES = 4

TOO_FAST = "too many commands, slow down"


class Phase(Enum):
    """How far the connection is from its end.

    Open: the server answers every frame. Closing: the server sends a close frame, so only the client's
        close frame counts. Failed: the server discards all frames (RFC 6455 §7.1.7). Closed: the
        client's close frame came.
    """

    OPEN = auto()
    CLOSING = auto()
    FAILED = auto()
    CLOSED = auto()


class Protocol:
    """The protocol of one connection, owned by its session."""

    __slots__ = (
        "_binary",
        "_commands",
        "_context",
        "_decoder",
        "_message",
        "_user",
        "limit",
        "phase",
    )

    def __init__(
        self,
        context: ClientContext,
        user: str,
        subscriptions: Subscriptions,
        *,
        binary: bool = False,
        deflate: bool = False,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        """`binary`: commands are MessagePack; `deflate`: compression was negotiated; `clock` gives
        seconds, for the limits.
        """
        extensions: list[Extension] = [Inflate(MAX_MESSAGE)] if deflate else []
        self.phase = Phase.OPEN
        self._context = context
        self._user = user
        self._commands = Commands(context, user, subscriptions)
        self._decoder = FrameProtocol(client=False, extensions=extensions)
        self.limit = CommandLimit(context.command_rate, clock)
        self._binary = binary
        self._message = b""

    def receive(self, data: bytes) -> Iterator[Frame | Close]:
        """Decode `data` to frames. The caller answers each before it takes the next one. A `Close`
        stands for a frame that cannot be decoded.
        """
        if self.failed:
            return
        self._decoder.receive_bytes(data)
        try:
            for frame in self._decoder.received_frames():
                if self.failed:
                    return
                yield frame
        except ParseFailed as error:
            yield PARSE_FAILURES.get(error.code, Close.PROTOCOL_ERROR)

    def answer(self, frame: Frame | Close) -> Answer:
        """Return the replies to a frame."""
        if isinstance(frame, Close):
            return self.fail(frame)
        if frame.opcode is Opcode.CLOSE:
            self.phase = Phase.CLOSED
            return (ClientClosed(int(frame.payload[0])),)
        if self.phase is not Phase.OPEN:
            return ()
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY):
            return self._on_control(frame)
        if self._binary is not (frame.opcode is Opcode.BINARY):
            return self.fail(Close.TEXT if self._binary else Close.BINARY)
        data = frame.payload
        # Only the payload of a close frame is a tuple.
        assert not isinstance(data, tuple)
        return self.on_data(data.encode() if isinstance(data, str) else bytes(data), frame)

    @property
    def failed(self) -> bool:
        """Whether nothing is read any more."""
        return self.phase is Phase.FAILED

    def subscribe(self, command: Subscribe, selection: Selection) -> Replies:
        """Return the replies to the command of a `LookUp`, whose symbols are in `selection`."""
        return self._commands.subscribe(command, selection)

    def close(self) -> None:
        """Answer nothing more: the caller has sent a close frame."""
        if self.phase is Phase.OPEN:
            self.phase = Phase.CLOSING

    def fail(self, reason: Close) -> Replies:
        """Return the replies to a client that breaks the rules."""
        was_open = self.phase is Phase.OPEN
        if self.phase is not Phase.CLOSED:
            self.phase = Phase.FAILED if reason.value.fails else Phase.CLOSING
        return (reason,) if was_open else ()

    def _on_control(self, frame: Frame) -> Replies:
        if not self.limit.allows():
            return self.count_flood()
        if frame.opcode is not Opcode.PING:
            return ()
        # A ping is answered even if the user's budget is spent: without a pong, libraries take the
        # server for dead.
        self._context.budgets.commands.charge(self._user, COMMAND)
        # Only the payload of a text is a str.
        return (pong_frame(bytes(frame.payload)),)  # type: ignore[arg-type]  # see above

    def on_data(self, data: bytes, frame: Frame) -> Answer:
        """Add a frame, or a part of it, to its message, and answer the message at its end."""
        if len(self._message) + len(data) > MAX_MESSAGE:
            return self.fail(Close.TOO_BIG)
        # If a client sends byte by byte, a list of the pieces would take far more memory.
        self._message += data
        if frame.message_finished:
            message, self._message = self._message, b""
            return self._on_message(message)
        return self.count_flood() if frame.frame_finished and not self.limit.allows() else ()

    def _on_message(self, message: bytes) -> Answer:
        context, reader = self._context, MSGPACK_COMMANDS if self._binary else JSON_COMMANDS
        if not self.limit.allows():
            refusal = context.refuse("any", "rate_limited", TOO_FAST, reader.readable_id(message))
            return self.count_flood() or (refusal,)
        if context.budgets.commands.take(self._user, COMMAND):
            refusal = context.refuse("any", "rate_limited", USER_SPENT, reader.readable_id(message))
            return (refusal, *self.count_flood())
        try:
            command = reader.parse(message)
        except BadCommand as error:
            refusal = context.refuse("any", error.code, str(error), error.id)
            too_many = self.limit.too_many_bad(good=False)
            return (refusal, *self.fail(Close.BAD_COMMANDS)) if too_many else (refusal,)
        self.limit.too_many_bad(good=True)
        self._charge(command)
        return self._commands.execute(command)

    def _charge(self, command: Command) -> None:
        """Charge for the symbols of a command."""
        names = command.charged_symbols
        symbols = len(self._context.selector.topics) if EVERYTHING in names else len(names)
        self.limit.charge(symbols)
        self._context.budgets.commands.add_debt(self._user, symbols // SYMBOLS_A_COMMAND)

    def count_flood(self) -> Replies:
        """Count a frame that came too fast, and close after too many of them."""
        return self.fail(Close.FLOODING) if self.limit.is_flooded() else ()


def waits_its_turn(frame: Frame | Close) -> bool:
    """Whether the answer waits until the client has read the earlier ones. Most answers do."""
    return isinstance(frame, Frame) and frame.opcode is not Opcode.CLOSE


def is_pong(data: bytes) -> bool:
    """Whether `data` is one well-formed pong and nothing else (RFC 6455 §5.5.3)."""
    if len(data) < 2 or data[0] != _PONG:
        return False
    size = data[1] - _MASKED
    return 0 <= size <= MAX_CONTROL_PAYLOAD and len(data) == 2 + _MASK_BYTES + size
