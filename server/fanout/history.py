"""The last updates of one symbol, for clients that come back and have missed a few."""

from collections import deque
from itertools import islice

from server.fanout.frame import UpdateFrame

RING_UPDATES = 32
"""Updates kept of an active symbol for clients that come back: two minutes of a price that moves every
four seconds, 24 KB. Who was away for longer is better served with one full quote.
"""


class Ring(deque[UpdateFrame]):
    """Leads without a gap to the symbol's present version: whoever leaves one out has to clear it."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(maxlen=RING_UPDATES)

    def newest(self, count: int) -> list[UpdateFrame] | None:
        """The last `count` updates, oldest first; None if not so many are kept."""
        missing = len(self) - count
        return None if missing < 0 else list(islice(self, missing, None))
