"""Moments at which something is to be done with a session: one task for all of them.

A session has one moment, the next: a heartbeat, its token's end, or the end of its closing.

A timer wheel of one-second slots in a dict. A heap would keep entries of connections long gone until
their time came; here a session that ends takes its own entry out.
"""

from collections.abc import Collection
from math import ceil
from typing import Protocol

import trio

from server.pacing import CHECKPOINT_EVERY


class Timed(Protocol):
    """Something with at most one moment of its own."""

    deadline: float

    def on_deadline(self) -> None:
        """Called within a second after `deadline`; may set a new one."""


class DeadlineWheel:
    """Who is due when. `deadline` is in trio's time; infinite means none."""

    def __init__(self) -> None:
        self._slots: dict[int, dict[Timed, None]] = {}  # half of a set's memory

    def set(self, item: Timed, deadline: float) -> None:
        """Give `item` a deadline in place of the one it has."""
        self.clear(item)
        item.deadline = deadline
        if deadline != float("inf"):
            self._slots.setdefault(ceil(deadline), {})[item] = None

    def clear(self, item: Timed) -> None:
        """Take `item` out."""
        if item.deadline != float("inf"):
            slot = self._slots.get(ceil(item.deadline), {})
            slot.pop(item, None)
            if not slot:
                self._slots.pop(ceil(item.deadline), None)
        item.deadline = float("inf")

    async def run(self) -> None:
        """Call everyone who is due, until cancelled."""
        due = ceil(trio.current_time())
        while True:
            await trio.sleep_until(due)
            for slot in [slot for slot in self._slots if slot <= due]:
                await self._call(self._slots.pop(slot))
            due = max(due + 1, ceil(trio.current_time()))

    async def _call(self, items: Collection[Timed]) -> None:
        for number, item in enumerate(items, 1):
            # While others had their turn it may have been cleared, or given a later deadline.
            if item.deadline <= trio.current_time():
                item.deadline = float("inf")
                item.on_deadline()
            if number % CHECKPOINT_EVERY == 0:
                await trio.lowlevel.checkpoint()
