"""Describes this server's clients to operators, and sends them away on request."""

import heapq
import re
from collections.abc import Collection, Sequence
from itertools import islice
from time import time_ns
from typing import Annotated, Literal

import msgspec
import trio
from msgspec import Meta

from server.fanout.breaker import BreakerState
from server.fanout.hub import Hub
from server.fanout.outbox_state import State
from server.gateway.closing import Close
from server.gateway.connection import Connection
from server.gateway.pool import SOON_MS, Pool
from server.gateway.sockets import peer_address, peer_numbers
from server.pacing import CHECKPOINT_EVERY

SHOWN_SYMBOLS = 10
"""Symbols of a client that are named; all are counted."""

_OPENED = re.compile(r"[0-9]{1,18}")


class ClientView(msgspec.Struct, frozen=True, kw_only=True):
    """One client's connection, and why it is behind."""

    id: Annotated[str, Meta(description="Name of the connection, for `drain` and `disconnect`")]
    worker: Annotated[
        int | None, Meta(description="The worker that serves it; null without workers")
    ]
    user: Annotated[str, Meta(description="User of its token")]
    role: Annotated[str | None, Meta(description="Role of its token, null without one")]
    address: Annotated[str, Meta(description="Its address, as TRUSTED_PROXIES says")]
    age: Annotated[float, Meta(description="Seconds since it connected")]
    symbols: Annotated[int, Meta(description="Number of symbols; those of `*` count, too")]
    everything: Annotated[bool, Meta(description="Whether it subscribed to `*`")]
    first_symbols: Annotated[
        Sequence[str], Meta(description=f"The first {SHOWN_SYMBOLS} of its symbols")
    ]
    bars: Annotated[int, Meta(description="Number of its subscriptions to bars")]
    owed: Annotated[
        int, Meta(description="Updates and answers that wait: at most one update for each symbol")
    ]
    unread: Annotated[
        int | None,
        Meta(description="Bytes sent that its computer has not acknowledged, null if unknown"),
    ]
    state: Annotated[
        Literal["open", "throttled", "blocked", "closing"],
        Meta(description="`blocked`: its socket is full. `throttled`: it asked for fewer updates"),
    ]
    blocked_for: Annotated[
        float | None, Meta(description="Seconds since its socket is full, null if it is not")
    ]
    breaker: Annotated[
        Literal["closed", "open", "half_open", "given_up"],
        Meta(description="State of its circuit breaker"),
    ]
    round_trip: Annotated[
        float | None, Meta(description="Seconds of a round trip over the network, null if unknown")
    ]
    interval: Annotated[
        float, Meta(description="Seconds between two updates of a symbol, 0 without a throttle")
    ]
    format: Annotated[
        Literal["json", "compact", "msgpack"], Meta(description="Form of its messages")
    ]
    fields: Annotated[
        Sequence[str] | None, Meta(description="Fields that it chose, null for all of them")
    ]
    bytes_received: Annotated[
        int | None,
        Meta(description="Bytes that its computer has acknowledged since it connected"),
    ]


class Rank(msgspec.Struct, frozen=True, array_like=True, order=True):
    """How far a client is behind, for comparisons. A full socket is worst. Of two clients that are as
    far behind, the older one comes first: `newness` is the time at which it connected, times -1.
    """

    blocked: bool
    blocked_for: float
    owed: int
    newness: int
    id: str


class Ranks(msgspec.Struct, frozen=True):
    """The clients of one worker that are most behind, the first one first, and how many match."""

    ranks: list[Rank]
    matching: int


class Clients:
    """The clients of this process. `worker` is its number, None without workers."""

    def __init__(self, hub: Hub, pool: Pool, worker: int | None) -> None:
        self._hub = hub
        self._pool = pool
        self._worker = worker

    async def rank(self, query: str, count: int) -> Ranks:
        """Return the `count` clients that are most behind, of those whose user or address has `query`
        in it.
        """
        query = query.casefold()
        matching: list[Rank] = []
        for number, session in enumerate(list(self._pool.sessions)):
            if number % CHECKPOINT_EVERY == CHECKPOINT_EVERY - 1:
                await trio.lowlevel.checkpoint()
            if not session.over and (not query or self._matches(session, query)):
                matching.append(self._rank(session))
        return Ranks(heapq.nlargest(count, matching), len(matching))

    def views(self, ids: Collection[str]) -> list[ClientView]:
        """Return the clients with these ids, without those that have left."""
        opened = {self._opened(each) for each in ids}
        found = (each for each in self._pool.sessions if each.opened_us in opened)
        return [self._view(each) for each in found if not each.over]

    def close(self, id: str, action: Literal["drain", "disconnect"]) -> ClientView | None:
        """Send a client away: with `drain` it is told to come back. Return it, None if it is not here.

        Harmless if it is closing already.
        """
        opened = self._opened(id)
        session = next((each for each in self._pool.sessions if each.opened_us == opened), None)
        if session is None or session.over:
            return None
        view = self._view(session)
        if action == "drain":
            session.send_away(SOON_MS)
        else:
            session.close(Close.DISCONNECTED)
        return view

    def _id(self, session: Connection) -> str:
        return f"{self._worker or 0}-{session.opened_us}"

    def _opened(self, id: str) -> int | None:
        """Return the `opened_us` that an id names, None for another worker's client."""
        worker, _, opened = id.partition("-")
        is_here = worker == str(self._worker or 0) and _OPENED.fullmatch(opened)
        return int(opened) if is_here else None

    def _matches(self, session: Connection, query: str) -> bool:
        return query in session.identity.user.casefold() or query in _address(session)

    def _rank(self, session: Connection) -> Rank:
        blocking = self._hub.blocked_writers.blocked.get(session.outbox)
        seconds = trio.current_time() - blocking.since if blocking else 0.0
        outbox, newness = session.outbox, -session.opened_us
        return Rank(outbox.blocked, round(seconds, 1), outbox.owed, newness, self._id(session))

    def _view(self, session: Connection) -> ClientView:
        outbox, subscriptions = session.outbox, session.subscriptions
        blocking = self._hub.blocked_writers.blocked.get(outbox)
        numbers = peer_numbers(outbox.sock)
        everything = subscriptions.everything
        topics = self._hub.topics.values() if everything else subscriptions.topics
        return ClientView(
            id=self._id(session),
            worker=self._worker,
            user=session.identity.user,
            role=session.identity.role,
            address=_address(session),
            age=round(time_ns() / 1e9 - session.opened_us / 1e6, 1),
            symbols=len(topics),
            everything=everything,
            first_symbols=[each.symbol for each in islice(topics, SHOWN_SYMBOLS)],
            bars=len(subscriptions.bars),
            owed=outbox.owed,
            unread=numbers.waiting if numbers else None,
            state=_state(session),
            blocked_for=round(trio.current_time() - blocking.since, 1) if blocking else None,
            breaker=(blocking.breaker.state if blocking else BreakerState.CLOSED).value,
            round_trip=numbers.round_trip if numbers else None,
            interval=outbox.throttle,
            format=outbox.view.form,
            fields=outbox.view.fields,
            bytes_received=numbers.acknowledged if numbers else None,
        )


def _address(session: Connection) -> str:
    return session.address or peer_address(session.outbox.sock)


def _state(session: Connection) -> Literal["open", "throttled", "blocked", "closing"]:
    if session.closing:
        return "closing"
    if session.outbox.blocked:
        return "blocked"
    return "throttled" if session.outbox.state is State.THROTTLED else "open"
