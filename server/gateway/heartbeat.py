"""Checks at each heartbeat whether a client is still there, still active and still allowed.

One object serves all sessions, and keeps its values about each in fields of the session. A further
object for each of ten thousand connections would cost more memory than these values.
"""

import random
import time
from collections.abc import Iterable, Mapping
from math import ceil

import trio

from server.fanout.topic import Topic
from server.gateway.closing import Close
from server.gateway.connection import Connection
from server.gateway.deadlines import DeadlineWheel
from server.gateway.lifecycle import Event, State
from server.gateway.pool import Pool
from server.gateway.sockets import unacknowledged_for
from server.pacing import CHECKPOINT_EVERY

CLOCK_LOOK = 1.0
"""Seconds between two checks whether the wall clock was stepped."""

CLOCK_STEP = 0.5
"""Seconds by which the wall clock may deviate from the monotonic one. A larger deviation is a step.
Slewing (adjtime(3)) stays below that for minutes. The deadline wheel may be late by twice as much.
"""

MAX_UNANSWERED = 2
"""Pings without an answer after which a client is gone (RFC 6455 §5.5.2 sets no limit)."""


class Heartbeat:
    """Looks after all sessions.

    Arguments:
        topics: all topics by symbol.
        ping_interval, idle_timeout: in seconds.
    """

    def __init__(
        self,
        pool: Pool,
        deadlines: DeadlineWheel,
        topics: Mapping[str, Topic],
        ping_interval: float,
        idle_timeout: float,
    ) -> None:
        self._pool = pool
        self._deadlines = deadlines
        self._topics = topics
        # Idle time is counted in beats.
        self._interval = min(ping_interval, idle_timeout)
        self._idle_beats = ceil(idle_timeout / self._interval)

    def start(self, session: Connection) -> None:
        """Begin the beats of `session`."""
        # Clients that connected together are not pinged together.
        self._schedule(session, random.uniform(0, self._interval))

    def renew(self, session: Connection) -> None:
        """Go on with the session's new token."""
        self._schedule(session, self._interval)

    async def watch_clock(self, sessions: Iterable[Connection]) -> None:
        """Move the deadlines of tokens when the wall clock is stepped, until cancelled.

        A token ends by wall time. Deadlines are in trio's time, which a step does not change.
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

    def beat(self, session: Connection) -> None:
        """Ping the client, or close the connection if it must not go on."""
        if time.time() >= session.identity.expires_at:
            session.close(Close.TOKEN_EXPIRED)
            return
        if trio.current_time() < session.beat_at:
            # It was woken for the token's end, which has moved since.
            self._set_deadline(session)
            return
        if session.outbox.blocked:
            # A ping would wait behind what the client does not read. The breaker decides how long.
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

    def _is_idle(self, session: Connection) -> bool:
        """Note whether there was traffic since the last beat; True after too many beats without
        traffic.
        """
        # The wheel may be a second late.
        since = trio.current_time() - self._interval - 1
        mine, all_topics = session.subscriptions, self._topics
        barred = [all_topics[each.symbol] for each in mine.bars if each.symbol in all_topics]
        topics = all_topics.values() if mine.everything else [*mine.topics, *barred]
        if session.heard or any(topic.moved_at > since for topic in topics):
            session.quiet_beats = 0
            if session.state is State.IDLE:
                self._pool.change(session, Event.TRAFFIC)
        else:
            session.quiet_beats += 1
            if session.state is State.ACTIVE:
                self._pool.change(session, Event.QUIET)
        session.heard = False
        return session.quiet_beats >= self._idle_beats

    def _schedule(self, session: Connection, seconds: float) -> None:
        """Beat in `seconds`, or when the token expires."""
        session.beat_at = trio.current_time() + seconds
        self._set_deadline(session)

    def _set_deadline(self, session: Connection) -> None:
        expires = session.identity.expires_at - _wall_clock_ahead()
        self._deadlines.set(session, min(session.beat_at, expires))


def _wall_clock_ahead() -> float:
    """Return the seconds from trio's time to Unix time; only a step of the wall clock changes them."""
    return time.time() - trio.current_time()
