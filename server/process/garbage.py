"""Keeps the garbage collector from stopping the server once there are ten thousand connections.

A full collection looks at every container, which takes a fifth of a second with 10,000 connections.
While clients come in, each quarter more objects cause another one. Nearly all objects stay, or are
freed by their reference counts when a connection ends. So objects that survive a full collection are
frozen, and the next one looks only at new objects. Once an hour everything is thawed, so that no cycle
of frozen objects stays for ever.

Rejected: no collections at all (an exception's traceback is a cycle), and a high threshold (the
collection that comes at last takes as long).
"""

import gc
from time import monotonic
from typing import Literal

THAW_INTERVAL = 3600.0
"""Seconds between two collections of everything: one long pause an hour."""


class Freezer:
    """A callback for the collector, which calls it before and after each collection."""

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
    """Collect and freeze all objects now, and the survivors of each full collection from now on."""
    gc.callbacks.append(Freezer())
    gc.collect()
