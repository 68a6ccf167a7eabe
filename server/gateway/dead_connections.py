"""Removes connections whose client is gone, to make room for a new connection of the same user.

If a laptop wakes up in another network, its own old connections may take all its user's places. The
heartbeat would take a minute to notice that these are dead, so the search pings them at once.
"""

import trio

from server.gateway.closing import Close
from server.gateway.pool import Pool

PROBE_TIMEOUT = 1.5
"""Seconds to answer a ping: a mobile network's round trip, and less than a handshake may take."""

PROBE_CHECKS = 30
"""Looks in that time at whether all have answered."""


class DeadConnections:
    """Finds the dead connections of a user, with one search at a time for each user."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._probed: set[str] = set()

    async def evict(self, user: str) -> None:
        """Ping all connections of `user`, and end the one that has been silent for longest, if any."""
        if user in self._probed:
            return
        self._probed.add(user)
        try:
            asked = [session for session in self._pool.sessions if session.identity.user == user]
            for session in asked:
                session.ping()
            for _ in range(PROBE_CHECKS):
                await trio.sleep(PROBE_TIMEOUT / PROBE_CHECKS)
                if not any(session.unanswered for session in asked):
                    return
            dead = [session for session in asked if session.unanswered and not session.over]
            if dead:
                max(dead, key=lambda session: session.unanswered).drop(Close.NO_ANSWER)
        finally:
            self._probed.discard(user)
