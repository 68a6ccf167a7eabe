"""Keeps the garbage collector from stopping the world once there are ten thousand connections.

A full collection looks at every container there is: a fifth of a second with 10,000 connections, and
while they come in each quarter more of them is reason for another. Nearly all of it stays, or is freed
by its reference count when a connection ends. So what has survived a full collection is frozen: the
next one looks only at what is new. Once in a while everything is thawed, so that no cycle of frozen
objects stays for ever.

Rejected: no collections at all (an exception's traceback is a cycle), and a high threshold (the
collection that comes at last stops the world as long).
"""

import gc
from time import monotonic
from typing import Literal

THAW_INTERVAL = 3600.0
"""Seconds between two collections of everything: one long pause an hour."""


class Freezer:
    """A callback of the collector, which calls it before and after each collection."""

    def __init__(self) -> None:
        self._thaw_at = monotonic() + THAW_INTERVAL

    def __call__(self, phase: Literal["start", "stop"], info: dict[str, int]) -> None:
        if info["generation"] < 2:
            return
        if phase == "stop":
            gc.freeze()
        elif monotonic() >= self._thaw_at:
            self._thaw_at = monotonic() + THAW_INTERVAL
            gc.unfreeze()


def freeze_survivors() -> None:
    """Collect, freeze what exists now, and from now on what survives a full collection."""
    gc.callbacks.append(Freezer())
    gc.collect()
