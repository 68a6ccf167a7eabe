"""The WebSocket protocol's JSON messages, of the server and of clients."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import UNSET, UnsetType

from server.quotes.patch import Operation

MAX_ID_LENGTH = 64
"""Characters of a command's `id`, which the answer repeats."""

CommandId = int | Annotated[str, msgspec.Meta(max_length=MAX_ID_LENGTH)]

Symbols = Annotated[list[str], msgspec.Meta(min_length=1)]


class QuotesPatch(msgspec.Struct, frozen=True, tag_field="type", tag="quotes_patch"):
    """Changes of quotes.

    `ts`: when the newest change came from the feed, in microseconds since 1970. `epoch`, with full
    quotes only: the epoch that their versions belong to. `renamed`: the new symbols of those that are
    taken away because they were renamed. Subscriptions go on with them. `since`, with a selection of
    fields only: the version of the update before this one, by symbol.
    """

    ts: int
    versions: dict[str, int]
    operations: Sequence[Operation]
    epoch: str | UnsetType = UNSET
    renamed: dict[str, str] | UnsetType = UNSET
    since: dict[str, int] | UnsetType = UNSET


Recovered = Literal["current", "patches", "quote"]
"""The result of `resume` for a symbol: nothing, the missed patches, or the full quote."""


class Ack(msgspec.Struct, frozen=True, tag_field="type", tag="ack"):
    """A command was carried out on `symbols`.

    `interval`: the seconds that `throttle` granted. `recovered`: what `resume` sends for each symbol.
    """

    action: str
    symbols: list[str]
    id: CommandId | UnsetType = UNSET
    interval: float | UnsetType = UNSET
    recovered: dict[str, Recovered] | UnsetType = UNSET


ErrorCode = Literal[
    "bad_json",
    "bad_command",
    "unknown_symbol",
    "too_many_symbols",
    "not_subscribed",
    "rate_limited",
    "unauthorized",
    "store_unavailable",
]


class Error(msgspec.Struct, frozen=True, tag_field="type", tag="error"):
    """A command, or a part of it, was refused. The connection stays open."""

    code: ErrorCode
    message: str
    id: CommandId | UnsetType = UNSET
    symbols: list[str] | UnsetType = UNSET


MarketState = Literal["open", "halted", "closed"]
"""The state of one symbol's market."""


class Status(msgspec.Struct, frozen=True, tag_field="type", tag="status"):
    """Prices flow or not: all of them, or those of `symbols`. Or the market of `symbols` has changed.

    `interval`: seconds between two updates of a symbol during an overload; 0 when it has ended.
    """

    status: Literal["live", "stale"] | MarketState
    reason: str
    interval: float | UnsetType = UNSET
    symbols: list[str] | UnsetType = UNSET


class Reconnect(msgspec.Struct, frozen=True, tag_field="type", tag="reconnect"):
    """The server will close soon. The client should reconnect in `after_ms` milliseconds."""

    after_ms: int


class Pong(msgspec.Struct, frozen=True, tag_field="type", tag="pong"):
    """The answer to `ping`; `ts` is in microseconds since 1970."""

    ts: int
    id: CommandId | UnsetType = UNSET


Message = Ack | Error | Status | Reconnect | Pong
"""A message that is not about quotes. It is an object in every form."""


class _Command(msgspec.Struct, frozen=True, tag_field="action", tag=str.lower):
    id: CommandId | UnsetType = UNSET

    @property
    def action(self) -> str:
        """Return the command's name on the wire."""
        return str(self.__struct_config__.tag)


class _SymbolCommand(_Command, frozen=True, kw_only=True):
    symbols: Symbols

    @property
    def charged_symbols(self) -> Sequence[str]:
        """The symbols for which the client is charged. Each command must have this property."""
        return self.symbols


class _PlainCommand(_Command, frozen=True, kw_only=True):
    @property
    def charged_symbols(self) -> Sequence[str]:
        """The symbols for which the client is charged: none."""
        return ()


class Subscribe(_SymbolCommand, frozen=True, kw_only=True):
    """Send these symbols' quotes from now on."""


class Unsubscribe(_SymbolCommand, frozen=True, kw_only=True):
    """Send these symbols' quotes no longer."""


class Resync(_SymbolCommand, frozen=True, kw_only=True):
    """Send these symbols' full quotes again."""


class Auth(_PlainCommand, frozen=True, kw_only=True):
    """Go on with a new token."""

    token: str

    def __repr__(self) -> str:
        return "Auth(…)"


class Throttle(_PlainCommand, frozen=True, kw_only=True):
    """Send each symbol at most once in this time: seconds, or text such as `250ms`; 0 for no limit."""

    interval: float | str


class Ping(_PlainCommand, frozen=True, kw_only=True):
    """Answer with a `pong` message."""


Command = Subscribe | Unsubscribe | Resync | Auth | Throttle | Ping
"""A new command is a struct above, a member here, and a handler in server/gateway/commands.py."""


class BadCommand(Exception):
    """A text message that is not a command. `id` is the command's, if it could be read."""

    def __init__(
        self, code: Literal["bad_json", "bad_command"], message: str, id: CommandId | UnsetType
    ) -> None:
        super().__init__(message)
        self.code = code
        self.id = id


class _Identified(msgspec.Struct):
    id: CommandId | UnsetType = UNSET


encode = msgspec.json.Encoder().encode
"""A message as UTF-8 JSON without spaces."""


ACTIONS = sorted(str(each.__struct_config__.tag) for each in get_args(Command))

_UNREADABLE = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)
"""The errors of msgspec's decoders: wrong, nested too deeply, or MessagePack text that is not UTF-8."""


class CommandReader:
    """Reads commands of one form: JSON in UTF-8, or MessagePack."""

    def __init__(self, kind: Any, room: bytes) -> None:
        """`kind` is the decoder's class. `room`: what may follow a message."""
        self._command = kind(Command)
        self._identified = kind(_Identified)
        self._any = kind()
        self._room = room

    def parse(self, payload: bytes) -> Command:
        """Parse one message. Errors: BadCommand if it is not of this form, or not a known command."""
        try:
            command: Command = self._command.decode(payload)
        except _UNREADABLE as error:
            # msgspec may stop at a wrong field before it reaches invalid bytes behind it.
            if problem := self._syntax_error(payload):
                raise BadCommand("bad_json", problem, UNSET) from None
            problem = str(error)
            if problem.endswith("`$.action`"):
                problem += f": actions are {', '.join(ACTIONS)}"
            raise BadCommand("bad_command", problem, self.readable_id(payload)) from None
        return command

    def readable_id(self, payload: bytes) -> CommandId | UnsetType:
        """Return the `id` of a refused message, if it has a valid one."""
        try:
            identified: _Identified = self._identified.decode(payload)
        except _UNREADABLE:
            return UNSET
        return identified.id

    def _syntax_error(self, payload: bytes) -> str | None:
        try:
            self._any.decode(payload + self._room)
        except _UNREADABLE as error:
            return str(error)
        return None


# For half a surrogate pair at the end of JSON, msgspec reports a cut text, unless more follows.
JSON_COMMANDS = CommandReader(msgspec.json.Decoder, room=b" " * len("\\uD800"))
MSGPACK_COMMANDS = CommandReader(msgspec.msgpack.Decoder, room=b"")
