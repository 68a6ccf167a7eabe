"""Batches of this instance in the queue, until their answers."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from server.cluster.work import Work
from server.feeds.judge import survived
from server.intake.answer import Answer
from server.intake.batch import OnAnswer
from server.intake.names import id_hash
from server.intake.objects import Line
from server.intake.queued import Queued


class Receipt:
    """A batch of this instance in the queue. `waiting` counts its entries that are not judged."""

    def __init__(self, key: str, on_answer: OnAnswer) -> None:
        self.key = id_hash("", key) if key else 0
        self.answer = Answer()
        self.queued = False
        self.waiting = 0
        self._on_answer: OnAnswer | None = on_answer

    def settle(self) -> None:
        """Answer, once."""
        on_answer, self._on_answer = self._on_answer, None
        if on_answer:
            with survived("answer"):
                on_answer(self.answer)


class Own(NamedTuple):
    """An entry of this instance: its batch, the lines of that, and what the queue has of it."""

    receipt: Receipt
    lines: Sequence[Line]
    entry: Queued

    @property
    def work(self) -> Work:
        """The same work as that of the entry in the queue, which has no place there any more."""
        lines = [Line(number, each) for number, each in enumerate(self.entry.objects, 1)]
        return Work("", "", self.entry, lines)


def queued(own: Mapping[str, Own]) -> list[str]:
    """Return the keys of the entries that Redis has, the oldest first."""
    return [key for key, each in own.items() if each.receipt.queued]


def lost(waiting: Sequence[str], found: Sequence[str], *, whole: bool) -> list[str]:
    """Return the keys of entries that a Redis without its last data has forgotten.

    Arguments:
        waiting: what `queued` returned before the queue was read.
        found: the keys of the entries that were read, which are the queue's first ones.
        whole: they are all of the queue.
    """
    there = frozenset(found)
    missing = [(place, key) for place, key in enumerate(waiting) if key not in there]
    if not missing or whole:
        return [key for _, key in missing]
    # Batches are answered in their order. So one that is older than a found one comes before that.
    last = max((place for place, key in enumerate(waiting) if key in there), default=-1)
    return [key for place, key in missing if place < last]
