"""The WebSocket protocol's JSON messages, of the server and of clients."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal, get_args

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
    taken away because they were renamed. Subscriptions go on with them.
    """

    ts: int
    versions: dict[str, int]
    operations: Sequence[Operation]
    epoch: str | UnsetType = UNSET
    renamed: dict[str, str] | UnsetType = UNSET


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
    `next_open`: with `closed` and without `symbols`, when the next session opens, if one does.
    """

    status: Literal["live", "stale"] | MarketState
    reason: str
    interval: float | UnsetType = UNSET
    symbols: list[str] | UnsetType = UNSET
    next_open: datetime | UnsetType = UNSET


class Reconnect(msgspec.Struct, frozen=True, tag_field="type", tag="reconnect"):
    """The server will close soon. The client should reconnect in `after_ms` milliseconds."""

    after_ms: int


class Pong(msgspec.Struct, frozen=True, tag_field="type", tag="pong"):
    """The answer to `ping`; `ts` is in microseconds since 1970."""

    ts: int
    id: CommandId | UnsetType = UNSET


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


_command_decoder = msgspec.json.Decoder(Command)
_id_decoder = msgspec.json.Decoder(_Identified)
_syntax_decoder = msgspec.json.Decoder()

encode = msgspec.json.Encoder().encode
"""A message as UTF-8 JSON without spaces."""


ACTIONS = sorted(str(each.__struct_config__.tag) for each in get_args(Command))


def parse_command(text: str) -> Command:
    """Parse one text message. Errors: BadCommand if it is not JSON or not a known command."""
    try:
        command: Command = _command_decoder.decode(text)
    except (msgspec.MsgspecError, RecursionError) as error:
        # msgspec may stop at a wrong field before it reaches invalid JSON behind it.
        if problem := _syntax_error(text):
            raise BadCommand("bad_json", problem, UNSET) from None
        problem = str(error)
        if problem.endswith("`$.action`"):
            problem += f": actions are {', '.join(ACTIONS)}"
        raise BadCommand("bad_command", problem, readable_id(text)) from None
    return command


def _syntax_error(text: str) -> str | None:
    # For half a surrogate pair at the end, msgspec reports a cut text, unless more follows.
    try:
        _syntax_decoder.decode(text + " " * len("\\uD800"))
    except (msgspec.DecodeError, RecursionError) as error:
        return str(error)
    return None


def readable_id(text: str) -> CommandId | UnsetType:
    """Return the `id` of a refused message, if it has a valid one."""
    try:
        return _id_decoder.decode(text).id
    except (msgspec.MsgspecError, RecursionError):
        return UNSET
