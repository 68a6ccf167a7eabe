"""The messages that the core acts on, in the JSON form: the types of the fields that it reads."""

from datetime import datetime
from typing import Annotated

from msgspec import Meta, Struct, field

Whole = Annotated[int, Meta(ge=-(2**53), le=2**53)]
"""A version or a time in microseconds. Every JSON reader holds it."""


class Patch(Struct):
    """`quotes_patch`: the document checks its operations."""

    versions: dict[str, Whole]
    ts: Whole = 0
    epoch: str = ""
    since: dict[str, Whole] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)


class Acknowledged(Struct):
    """`ack` of any command: what it was carried out on."""

    action: str
    symbols: list[str] = field(default_factory=list)


class Resumed(Struct):
    """`ack` of a position: what became of each of its quotes."""

    recovered: dict[str, str]


class Throttled(Struct):
    """`ack` of `throttle`: the seconds that the server grants."""

    interval: float


class Refusal(Struct):
    """`error`: without symbols, it is about a whole command."""

    code: str
    message: str
    symbols: list[str] = field(default_factory=list)


class Status(Struct):
    """`status`: without symbols, it is about all of them. `interval` is that of an overload."""

    status: str
    reason: str
    symbols: list[str] = field(default_factory=list)
    interval: float | None = None
    next_open: datetime | None = None


class Reconnect(Struct):
    """`reconnect`: the milliseconds to stay away after this connection."""

    after_ms: float
