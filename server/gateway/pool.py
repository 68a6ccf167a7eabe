"""All connections: how many there are, how many each user has, and how they are sent away."""

from collections import Counter
from itertools import islice
from time import time_ns

import trio

from server.gateway.connection import Connection
from server.gateway.lifecycle import TRANSITIONS, Event, State
from server.gateway.refusals import Refusal, Refused
from server.gateway.views import Views

DRAIN_SLICE = 256
"""Sessions that are sent away between two checkpoints."""

LATER_MS = 5000
"""Milliseconds over which clients come back when the server stops and sends all of them away."""

SOON_MS = 1000
"""Milliseconds over which clients come back if the server sends away a few at a time."""

LAST_HANDSHAKES = 0.5
"""Seconds for handshakes that are under way when a server stops. One takes a round trip."""


class Pool:
    """Has places for connections, in all and per user, and the sessions that take them.

    Three counts differ. `places` counts the places taken now, by sessions and by unfinished handshakes.
    `sessions` are the connections after the upgrade, each in one of the `states`. `opened_total` counts
    all sessions since the start. `rejected`, `closed`, `lost` and `commands` also only grow.
    """

    def __init__(self, max_connections: int, max_per_user: int) -> None:
        self.capacity = max_connections
        self._max_per_user = max_per_user
        self.places = 0
        self._users: Counter[str] = Counter()
        self._gone = trio.Event()
        # A dict takes half of a set's memory.
        self.sessions: dict[Connection, None] = {}
        self.states: Counter[State] = Counter()
        self.draining = False
        self.opened_total = 0
        self.rejected: Counter[str] = Counter()
        self.closed: Counter[int] = Counter()
        self.lost = 0
        self.commands: Counter[tuple[str, str]] = Counter()
        self.views = Views()
        self._last_opened_us = 0

    def reserve(self) -> None:
        """Take one of the pool's places. Errors: Refusal if all are taken."""
        if self.places >= self.capacity:
            raise Refusal(Refused.AT_CAPACITY, "all connections are taken")
        self.places += 1

    def release(self) -> None:
        """Give a reserved place back."""
        self.places -= 1

    @property
    def use(self) -> float:
        """Return the share of the places that is taken, from 0 to 1."""
        return self.places / self.capacity

    def is_full_for(self, user: str) -> bool:
        """Whether all places of `user` are taken."""
        return self._users[user] >= self._max_per_user

    def reserve_for(self, user: str) -> None:
        """Take one of the places of `user`. Errors: Refusal if all are taken."""
        if self.is_full_for(user):
            raise Refusal(
                Refused.TOO_MANY_CONNECTIONS, f"you already have {self._max_per_user} connections"
            )
        self._users[user] += 1

    def release_for(self, user: str) -> None:
        """Give a place of `user` back."""
        self._users[user] -= 1
        if not self._users[user]:
            del self._users[user]

    def enter(self) -> None:
        """Count a connection that was accepted; `add` or `leave` follows."""
        self.states[State.CONNECTING] += 1

    def leave(self) -> None:
        """Count the end of a connection that did not become a session."""
        self.move(State.CONNECTING, Event.ENDED)
        self._gone.set()

    def move(self, state: State, event: Event) -> State:
        """Return the state that follows `state` at `event`, and count the connection in it."""
        new = TRANSITIONS[state, event]
        self.states[state] -= 1
        if new is not State.CLOSED:
            self.states[new] += 1
        return new

    def change(self, session: Connection, event: Event) -> None:
        """Change the state of a session as the table says."""
        session.state = self.move(session.state, event)

    def add(self, session: Connection) -> None:
        """Count a session as open; it holds a place of the pool and one of its user."""
        self.opened_total += 1
        self._last_opened_us = max(self._last_opened_us + 1, time_ns() // 1000)
        session.opened_us = self._last_opened_us
        self.sessions[session] = None
        self.change(session, Event.OPENED)

    def remove(self, session: Connection) -> None:
        """Count a session as closed and give its places back."""
        del self.sessions[session]
        self.change(session, Event.ENDED)
        self.closed[session.close_code] += 1
        self.lost += session.lost
        self.release()
        self.release_for(session.identity.user)
        self._gone.set()

    def send_away(self, count: int) -> None:
        """Tell `count` clients to come back soon. Other processes already accept connections."""
        staying = (session for session in self.sessions if not session.closing)
        for session in list(islice(staying, count)):
            session.send_away(SOON_MS)

    async def wait_empty(self) -> None:
        """Wait until no connection is left, and no handshake is under way."""
        while self.sessions or self.states[State.CONNECTING]:
            self._gone = trio.Event()
            await self._gone.wait()

    async def drain(self) -> None:
        """Tell every session to reconnect elsewhere, close it, and wait until all are gone."""
        self.draining = True
        for count, session in enumerate(list(self.sessions)):
            session.send_away(LATER_MS)
            if count % DRAIN_SLICE == DRAIN_SLICE - 1:
                await trio.lowlevel.checkpoint()
        # A client whose handshake ends now is sent away at once.
        with trio.move_on_after(LAST_HANDSHAKES):
            await self.wait_empty()
        while self.sessions:
            self._gone = trio.Event()
            await self._gone.wait()
