"""The WebSocket protocol's JSON messages, of the server and of clients."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import UNSET, UnsetType

from server.quotes.patch import Operation
from server.quotes.traded import Timeframe

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
    `timeframe`: the command was about bars of this length.
    """

    action: str
    symbols: list[str]
    id: CommandId | UnsetType = UNSET
    interval: float | UnsetType = UNSET
    recovered: dict[str, Recovered] | UnsetType = UNSET
    timeframe: Timeframe | UnsetType = UNSET


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


Message = Ack | Error | Status | Reconnect | Pong | dict[str, object]
"""A message that is not about quotes, perhaps as plain values. It is an object in every form."""


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


class _BarsCommand(_Command, frozen=True, kw_only=True):
    """A command with the name of another one, about bars of one length."""

    bars: Symbols
    timeframe: Timeframe
    symbols: Any = UNSET

    def __post_init__(self) -> None:
        """Errors: ValueError."""
        if self.symbols is not UNSET:
            raise ValueError("`symbols` and `bars` need commands of their own")

    @property
    def charged_symbols(self) -> Sequence[str]:
        """The symbols for which the client is charged."""
        return self.bars


class SubscribeBars(_BarsCommand, frozen=True, kw_only=True, tag="subscribe"):
    """Send these symbols' bars from now on."""


class UnsubscribeBars(_BarsCommand, frozen=True, kw_only=True, tag="unsubscribe"):
    """Send these symbols' bars no longer."""


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

AnyCommand = Command | SubscribeBars | UnsubscribeBars
"""A command, or one of those that their member `bars` tells from others of their name."""


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


class _Named(msgspec.Struct):
    action: Any = UNSET
    bars: Any = UNSET

    @property
    def is_about_bars(self) -> bool:
        return self.bars is not UNSET and self.action in ("subscribe", "unsubscribe")


encode = msgspec.json.Encoder().encode
"""A message as UTF-8 JSON without spaces."""


ACTIONS = sorted(str(each.__struct_config__.tag) for each in get_args(Command))

_SYMBOLS_ADVICE = "symbols are a list of one text or more"

_ADVICE = {
    "action": f"actions are {', '.join(ACTIONS)}",
    "symbols": _SYMBOLS_ADVICE,
    "bars": _SYMBOLS_ADVICE,
    "timeframe": f"timeframes are {', '.join(get_args(Timeframe))}",
    "token": "a token is a text, the JWT",
    "interval": "an interval is a number of seconds, or a text such as `250ms`",
    "id": f"an id is a whole number, or a text of at most {MAX_ID_LENGTH} characters",
}
"""The values that each field of a command may have."""

_FIELD = re.compile(r"(?:at `\$\.|missing required field `)(\w+)")
"""The field that an error of msgspec names. A list's item is named behind it."""

MAX_PROBLEM = 200
"""Characters of an error that repeats a client's value."""


def _with_advice(problem: str) -> str:
    """Return an error of msgspec, followed by the values that are allowed."""
    named = _FIELD.search(problem)
    if len(problem) > MAX_PROBLEM:
        problem = f"{problem[: MAX_PROBLEM // 2]}…{problem[-MAX_PROBLEM // 2 :]}"
    if named and named[1] in _ADVICE:
        return f"{problem}: {_ADVICE[named[1]]}"
    if "`object`" in problem:
        return f'{problem}: a command is an object, such as {{"action":"ping"}}'
    return problem


_UNREADABLE = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)
"""The errors of msgspec's decoders: wrong, nested too deeply, or MessagePack text that is not UTF-8."""


class CommandReader:
    """Reads commands of one form: JSON in UTF-8, or MessagePack."""

    def __init__(self, form: str, kind: Any, room: bytes) -> None:
        """`form` names the form, `kind` is the decoder's class. `room`: what may follow a message."""
        self._command = kind(Command)
        self._bars_command = kind(SubscribeBars | UnsubscribeBars)
        self._named = kind(_Named)
        self._identified = kind(_Identified)
        self._any = kind()
        self._form = form
        self._room = room

    def parse(self, payload: bytes) -> AnyCommand:
        """Parse one message. Errors: BadCommand if it is not of this form, or not a known command."""
        try:
            about_bars = b"bars" in payload and self._named.decode(payload).is_about_bars
            decoder = self._bars_command if about_bars else self._command
            command: AnyCommand = decoder.decode(payload)
        except _UNREADABLE as error:
            # msgspec may stop at a wrong field before it reaches invalid bytes behind it.
            if problem := self._syntax_error(payload):
                raise BadCommand("bad_json", problem, UNSET) from None
            problem = _with_advice(str(error))
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
        except RecursionError:
            return "nested too deeply"
        except _UNREADABLE as error:
            return f"not {self._form}: {error}"
        return None


# For half a surrogate pair at the end of JSON, msgspec reports a cut text, unless more follows.
JSON_COMMANDS = CommandReader("JSON", msgspec.json.Decoder, room=b" " * len("\\uD800"))
MSGPACK_COMMANDS = CommandReader("MessagePack", msgspec.msgpack.Decoder, room=b"")
