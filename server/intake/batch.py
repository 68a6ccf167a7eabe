"""A batch of published objects on its way, and where it goes."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from server.intake.answer import Answer

MAX_NAME_LENGTH = 64
"""Characters of a source, an epoch and an idempotency key."""


class Batch(NamedTuple):
    """The bodies of one request or of some frames, each NDJSON or an array.

    `source` and `epoch` are the publisher's names. `symbols` limits what it may publish, None for
    everything. `first_frame` is the number of the first body on its connection, 0 for a request. `key`
    names the batch, so that it counts once on all instances; '' if nobody named it.
    """

    bodies: Sequence[bytes]
    source: str
    epoch: str
    symbols: Sequence[str] | None
    first_frame: int = 0
    key: str = ""


class _TryLater(Exception):
    def __init__(self, message: str, wait: float) -> None:
        super().__init__(message)
        self.wait = wait


class Busy(_TryLater):
    """Nothing of a batch was taken, as too many wait. Try again after `wait` seconds."""


class Uncertain(_TryLater):
    """Nobody can tell whether a batch was taken. Try again after `wait` seconds."""


OnAnswer = Callable[[Answer], None]


class Desk(Protocol):
    """Takes batches. It answers each, in their order, once their updates are published."""

    async def offer(self, batch: Batch, on_answer: OnAnswer) -> None:
        """Take a batch if there is room. Errors: Busy, Uncertain."""

    async def put(self, batch: Batch, on_answer: OnAnswer) -> None:
        """Take a batch once there is room."""
