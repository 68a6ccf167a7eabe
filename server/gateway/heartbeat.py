"""Whether a client is still there, still active, and still allowed in: each is looked at once a beat.

One object for all sessions; what it remembers of each are fields of the session, as an object more
for each of ten thousand connections would cost more than what it holds.
"""

import random
import time
from collections.abc import Iterable, Mapping
from math import ceil
from typing import TYPE_CHECKING

import trio

from server.fanout.topic import Topic
from server.gateway.closing import Close
from server.gateway.deadlines import DeadlineWheel
from server.gateway.lifecycle import Event, State
from server.gateway.sockets import unacknowledged_for
from server.pacing import CHECKPOINT_EVERY

if TYPE_CHECKING:
    from server.gateway.session import Session

CLOCK_LOOK = 1.0
"""Seconds between two looks at whether the wall clock was stepped."""

CLOCK_STEP = 0.5
"""Seconds by which the wall clock may go on otherwise than the monotonic one. Slewing (adjtime(3))
stays below it for minutes; it is half of what the wheel may be late.
"""

MAX_UNANSWERED = 2
"""Pings; a client that lets as many heartbeats pass is gone (RFC 6455 §5.5.2 says nothing)."""


class Heartbeat:
    """Arguments: `topics` are all there are; `ping_interval` and `idle_timeout` are in seconds."""

    def __init__(
        self,
        deadlines: DeadlineWheel,
        topics: Mapping[str, Topic],
        ping_interval: float,
        idle_timeout: float,
    ) -> None:
        self._deadlines = deadlines
        self._topics = topics
        # Idle time is counted in beats.
        self._interval = min(ping_interval, idle_timeout)
        self._idle_beats = ceil(idle_timeout / self._interval)

    def start(self, session: "Session") -> None:
        """Look after `session` from now on."""
        # Not after all at once, though they may all have connected at once.
        self._schedule(session, random.uniform(0, self._interval))

    def renew(self, session: "Session") -> None:
        """Go on with the session's new token."""
        self._schedule(session, self._interval)

    async def watch_clock(self, sessions: Iterable["Session"]) -> None:
        """Move the ends of tokens when the wall clock is stepped, until cancelled: a token ends by
        wall time, while deadlines are in trio's, which a step does not change.
        """
        ahead = _wall_clock_ahead()
        while True:
            await trio.sleep(CLOCK_LOOK)
            if abs(_wall_clock_ahead() - ahead) < CLOCK_STEP:
                continue
            ahead = _wall_clock_ahead()
            for number, session in enumerate(list(sessions), 1):
                if not session.closing:
                    self._set_deadline(session)
                if number % CHECKPOINT_EVERY == 0:
                    await trio.lowlevel.checkpoint()

    def beat(self, session: "Session") -> None:
        """Ping the client, or close the connection if it is not to go on."""
        if time.time() >= session.identity.expires_at:
            session.close(Close.TOKEN_EXPIRED)
            return
        if trio.current_time() < session.beat_at:  # woken for a token that did not end after all
            self._set_deadline(session)
            return
        if session.outbox.blocked:
            # Pings would wait behind what is not read; whether to wait is the breaker's to say.
            session.unanswered = 0
            if unacknowledged_for(session.outbox.sock) > MAX_UNANSWERED * self._interval:
                session.drop(Close.NO_ANSWER)
                return
        elif session.unanswered >= MAX_UNANSWERED:
            session.close(Close.NO_ANSWER)
            return
        elif self._is_idle(session):
            session.close(Close.IDLE)
            return
        else:
            session.ping()
        self._schedule(session, self._interval)

    def _is_idle(self, session: "Session") -> bool:
        """Look for traffic since the last beat; True after too many looks in vain."""
        since = trio.current_time() - self._interval - 1  # the wheel may be a second late
        topics = self._topics.values() if session.everything else session.topics
        if session.heard or any(topic.moved_at > since for topic in topics):
            session.quiet_beats = 0
            if session.state is State.IDLE:
                session.on(Event.TRAFFIC)
        else:
            session.quiet_beats += 1
            if session.state is State.ACTIVE:
                session.on(Event.QUIET)
        session.heard = False
        return session.quiet_beats >= self._idle_beats

    def _schedule(self, session: "Session", seconds: float) -> None:
        """Beat in so many seconds, or when the token expires."""
        session.beat_at = trio.current_time() + seconds
        self._set_deadline(session)

    def _set_deadline(self, session: "Session") -> None:
        expires = session.identity.expires_at - _wall_clock_ahead()
        self._deadlines.set(session, min(session.beat_at, expires))


def _wall_clock_ahead() -> float:
    """Return the seconds from trio's time to Unix time; only a step of the wall clock changes them."""
    return time.time() - trio.current_time()
