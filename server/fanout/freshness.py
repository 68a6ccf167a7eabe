"""Notices when the prices of one symbol or of all stop or flow again, and tells clients."""

from collections.abc import Mapping

import trio

from server.fanout.status import FeedStatus
from server.fanout.topic import Topic

FEED_QUIET = "feed_quiet"
"""The status' reason when no symbol that is watched trades."""

CHECK_INTERVAL = 1.0
"""Seconds between two looks."""


class Freshness:
    """Owned by the hub, as are `topics` and `status`. `quiet_after`: seconds without a trade after
    which a symbol is quiet.
    """

    def __init__(self, topics: Mapping[str, Topic], status: FeedStatus, quiet_after: float) -> None:
        self._topics = topics
        self._status = status
        self._quiet_after = quiet_after

    def on_watched(self, topic: Topic) -> None:
        """Treat a symbol that had no subscriber as fresh, so that it has time to trade. If it was quiet
        before and has not traded since, it stays quiet.
        """
        now = trio.current_time()
        topic.freshness.quiet &= topic.moved_at <= now - self._quiet_after
        self._give_time(topic, now)

    async def run(self) -> None:
        """Look every CHECK_INTERVAL until cancelled."""
        while True:
            await trio.sleep(CHECK_INTERVAL)
            self._look(trio.current_time())

    def _look(self, now: float) -> None:
        """Send one message if nothing at all trades, else one for each symbol that fell quiet."""
        watched = [topic for topic in self._topics.values() if topic.watched]
        limit = now - self._quiet_after
        if self._status.closed:
            # Prices may rest until the opening, and then have time to come.
            for topic in watched:
                self._give_time(topic, now)

        def is_quiet(topic: Topic) -> bool:
            # A price that waits in the inbox would come behind the status.
            return topic.moved_at <= limit and not topic.owes

        silent = watched and not self._status.closed and all(map(is_quiet, watched))
        if silent and self._status.message.status == "live":
            self._status.set("stale", FEED_QUIET)
        elif not silent and self._status.message.reason == FEED_QUIET:
            for topic in watched:
                self._give_time(topic, now)
            self._status.set("live", "feed_resumed")
        if self._status.message.status == "live":
            for topic in watched:
                if topic.freshness.quiet is not is_quiet(topic):
                    topic.freshness.quiet = not topic.freshness.quiet
                    topic.publish_source(topic.freshness)

    def _give_time(self, topic: Topic, now: float) -> None:
        if not topic.freshness.quiet:
            topic.moved_at = now
