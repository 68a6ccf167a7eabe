"""Keeps the garbage collector from stopping the server once there are ten thousand connections.

A full collection looks at every container, which takes a fifth of a second with 10,000 connections.
While clients come in, the collector runs again whenever the number of objects has grown by a quarter.
Nearly all objects stay, or their reference counts free them when a connection ends. So the server
freezes the objects that survive a full collection, and the next one looks only at new objects. Once an
hour it thaws everything, so that no cycle of frozen objects stays for ever.

Rejected: no collections at all, as an exception's traceback is a cycle. Also rejected: a high
threshold, as the collection that comes at last takes as long.
"""

import gc
from time import monotonic
from typing import Literal

THAW_INTERVAL = 3600.0
"""Seconds between two collections of everything: one long pause an hour."""


class Freezer:
    """A callback that the collector calls before and after each collection."""

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
