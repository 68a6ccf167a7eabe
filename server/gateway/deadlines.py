"""Deadlines of all sessions, with one task for all of them.

A session has one deadline, its next one: a heartbeat, its token's end, or the end of its closing.

The deadlines are in a timer wheel: one-second slots in a dict. A session that ends removes its own
entry. A heap would keep the entries of ended connections until their deadlines.
"""

from collections.abc import Collection
from math import ceil, inf
from typing import Protocol

import trio

from server.pacing import CHECKPOINT_EVERY


class Timed(Protocol):
    """Something with at most one deadline."""

    deadline: float

    def on_deadline(self) -> None:
        """Called within a second after `deadline`. It may set a new one."""


class DeadlineWheel:
    """Calls each item at its deadline. Deadlines are in trio's time; an infinite one means none."""

    def __init__(self) -> None:
        # A dict takes half of a set's memory.
        self._slots: dict[int, dict[Timed, None]] = {}

    def set(self, item: Timed, deadline: float) -> None:
        """Set the deadline of `item`, in place of any other."""
        self.clear(item)
        item.deadline = deadline
        if deadline != inf:
            self._slots.setdefault(ceil(deadline), {})[item] = None

    def clear(self, item: Timed) -> None:
        """Remove the deadline of `item`."""
        if item.deadline != inf:
            slot = self._slots.get(ceil(item.deadline), {})
            slot.pop(item, None)
            if not slot:
                self._slots.pop(ceil(item.deadline), None)
        item.deadline = inf

    async def run(self) -> None:
        """Call every item that is due, until cancelled."""
        due = ceil(trio.current_time())
        while True:
            await trio.sleep_until(due)
            for slot in [slot for slot in self._slots if slot <= due]:
                await self._call(self._slots.pop(slot))
            due = max(due + 1, ceil(trio.current_time()))

    async def _call(self, items: Collection[Timed]) -> None:
        for number, item in enumerate(items, 1):
            # While other tasks ran, the item may have been cleared, or given a later deadline.
            if item.deadline <= trio.current_time():
                item.deadline = inf
                item.on_deadline()
            if number % CHECKPOINT_EVERY == 0:
                await trio.lowlevel.checkpoint()
