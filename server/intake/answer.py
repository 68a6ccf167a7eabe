"""The answer to a batch: how each of its objects counts."""

from typing import Literal, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

Code = Literal[
    "bad_json",
    "bad_price",
    "bad_size",
    "bad_time",
    "future",
    "unknown_symbol",
    "not_allowed",
    "too_large",
    "unknown_trade",
    "seq_too_old",
    "too_many_sources",
    "too_many_symbols",
    "store_unavailable",
    "internal_error",
]
"""Why an object does not count."""


class Reason(NamedTuple):
    """Why an object does not count. The message tells the publisher what to do."""

    code: Code
    message: str


INTERNAL_ERROR = Reason(
    "internal_error", "the server failed on this object; its log has the fault. Send it again"
)


class Refused(Exception):
    """An object does not count."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.reason = Reason(code, message)


class Rejection(msgspec.Struct, frozen=True, gc=False):
    """One object that does not count. `line` is its line, or its place in an array, from 1."""

    line: int
    code: Code
    message: str
    frame: int | UnsetType = UNSET


class Answer(msgspec.Struct):
    """Every object of a batch counts in one of the first five.

    `outranked`: accepted objects of a source while one with a higher priority speaks.
    """

    accepted: int = 0
    duplicate: int = 0
    late: int = 0
    held: int = 0
    rejected: list[Rejection] = msgspec.field(default_factory=list)
    state: Literal["applied", "queued"] = "applied"
    outranked: int | UnsetType = UNSET

    def add(self, other: "Answer") -> None:
        """Count the objects of `other`, too."""
        self.accepted += other.accepted
        self.duplicate += other.duplicate
        self.late += other.late
        self.held += other.held
        self.rejected += other.rejected
        self.state = other.state
        if other.outranked:
            self.outranked = (self.outranked or 0) + other.outranked
