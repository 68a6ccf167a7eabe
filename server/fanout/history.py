"""One symbol's last updates, for clients that come back, and the versions that they may build on."""

from collections import deque
from collections.abc import Sequence
from itertools import islice
from math import inf

from server.fanout.frame import UpdateFrame

HISTORY_UPDATES = 32
"""Updates kept of an active symbol, 24 KB: two minutes of a price that moves every four seconds. A
client that was away for longer is better served with one full quote.
"""

SETTLING_TIME = 30.0
"""Seconds until every instance has heard of new reference data: each looks every two seconds."""


class History:
    """Owned by its topic.

    The updates lead without a gap to the symbol's present version. Only a version above
    `_relisted_at` proves that a client has the newest reference data. Until `_settles_at`, in
    trio's time, no version does.
    """

    __slots__ = ("_relisted_at", "_settles_at", "_updates")

    def __init__(self) -> None:
        self._relisted_at = 0.0
        self._settles_at = inf
        self._updates: deque[UpdateFrame] | None = None

    def keep(self, updates: int) -> None:
        """Keep the last `updates` from now on, 0 for none."""
        self._updates = deque(maxlen=updates) if updates else None

    def append(self, update: UpdateFrame) -> None:
        """Keep the update that made the present version."""
        if self._updates is not None:
            self._updates.append(update)

    def clear(self) -> None:
        """Forget the updates, as they do not lead to the present version."""
        if self._updates is not None:
            self._updates.clear()

    def on_relisted(self, now: float) -> None:
        """Trust no version until every instance has heard of the new reference data."""
        self._relisted_at = inf
        self._settles_at = now + SETTLING_TIME
        self.clear()

    def on_epoch(self) -> None:
        """Count versions anew. One of the new epoch proves that a client has the reference data."""
        if self._relisted_at != inf:
            self._relisted_at = 0.0
        self.clear()

    def settle(self, version: int, now: float) -> None:
        """If the settling time is over, trust versions after `version` again."""
        if self._settles_at <= now:
            self._relisted_at, self._settles_at = version, inf

    def missed(self, held: int, version: int, now: float) -> Sequence[UpdateFrame] | None:
        """Return the updates after `held` up to the present `version`, oldest first. Return
        None if a client that has `held` needs a full quote.
        """
        self.settle(version, now)
        if not self._relisted_at < held <= version:
            return None
        missed = version - held
        if not missed:
            return []
        if self._updates is None or len(self._updates) < missed:
            return None
        return list(islice(self._updates, len(self._updates) - missed, None))
