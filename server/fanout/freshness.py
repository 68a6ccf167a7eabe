"""Notices that prices stopped flowing, of one symbol or of all, or flow again, and says so."""

from typing import TYPE_CHECKING

import trio

from server.fanout.flusher import Flusher
from server.fanout.topic import Topic

if TYPE_CHECKING:
    from server.fanout.hub import Hub

FEED_QUIET = "feed_quiet"
"""The status' reason when no symbol that is watched trades."""

CHECK_INTERVAL = 1.0
"""Seconds between two looks."""


class Freshness:
    """Owned by the hub. `quiet_after`: seconds without a trade after which a symbol is quiet."""

    def __init__(self, hub: "Hub", flusher: Flusher, quiet_after: float) -> None:
        self._hub = hub
        self._flusher = flusher
        self._quiet_after = quiet_after

    def on_watched(self, topic: Topic) -> None:
        """Somebody will watch a symbol that nobody did: it has the time from now on to trade, unless it
        was quiet already and still is.
        """
        now = trio.current_time()
        topic.freshness.quiet &= topic.moved_at <= now - self._quiet_after
        self._give_time(topic, now)

    async def run(self) -> None:
        """Look again and again until cancelled."""
        while True:
            await trio.sleep(CHECK_INTERVAL)
            self._look(trio.current_time())

    def _look(self, now: float) -> None:
        """If nothing at all trades, that is one message; else one for each symbol that fell quiet."""
        watched = [topic for topic in self._hub.topics.values() if topic.watched]
        limit = now - self._quiet_after
        if watched and all(topic.moved_at <= limit for topic in watched):
            if self._hub.status.message.status == "live":
                self._hub.set_status("stale", FEED_QUIET)
        elif self._hub.status.message.reason == FEED_QUIET:
            for topic in watched:
                self._give_time(topic, now)
            self._hub.set_status("live", "feed_resumed")
        if self._hub.status.message.status == "live":
            for topic in watched:
                if topic.freshness.quiet is not (topic.moved_at <= limit):
                    topic.freshness.quiet = not topic.freshness.quiet
                    topic.publish_freshness(self._flusher)

    def _give_time(self, topic: Topic, now: float) -> None:
        if not topic.freshness.quiet:
            topic.moved_at = now
