"""Finds snapshots in memory, then in the cache, then in the catalogue, many symbols at a time.

If many requests ask for one symbol at once, they share one *flight*. The first request starts it, and
the others wait for the same event. The lookups run in the loader's own tasks, so they go on if a
request gives up.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import NamedTuple, Protocol

import trio

from server.quotes.instrument import is_symbol
from server.quotes.opening import in_session
from server.quotes.snapshot import Snapshot
from server.store.batcher import Batcher
from server.store.cache import Cache, jittered
from server.store.catalogue import BATCH_ROWS, Catalogue, StoreUnavailable
from server.store.component import Component
from server.store.stats import StoreStats
from server.store.ttl_lru import TtlLru

LOAD_TIMEOUT = 2.0
"""Seconds that a caller waits by default; a client waits five for its handshake."""

QUERY_WINDOW = 0.0015
"""Seconds over which symbols are gathered for one query: less than the query itself takes."""

MAX_LOOKUPS = 8
"""Concurrent lookups in the cache."""

MAX_QUERIES = 4
"""Concurrent queries: a part of the pool, so that searches and write-back find a connection."""

MAX_FLIGHTS = 20_000
"""Symbols in flight; one request can name 8,000. Further ones are refused at once, so that they do not
pile up before a slow database. A user may have at most as many flights as are free for others. So a
single user gets half of them, and each of ten users an eleventh. There is always room for another user.
"""

FLIGHT_WAIT = 1.0
"""Seconds after which a user with too many flights may ask again: lookups take milliseconds."""

UNKNOWN_TTL = 10.0
"""Seconds for which the loader remembers that a symbol does not exist."""

UNKNOWN_SYMBOLS = 20_000
"""Symbols remembered not to exist, some 2 MB."""

WAITING_WRITES = 10_000
"""Snapshots waiting to be written to the cache. More are dropped, which costs another query."""


class Loaded(NamedTuple):
    """The result for each symbol, which is in exactly one of `found`, `unknown` and `unavailable`.

    Symbols in `stale` are in `found` too: they are past their TTL, but the database gave no answer.
    """

    found: Mapping[str, Snapshot]
    unknown: Sequence[str] = ()
    unavailable: Sequence[str] = ()
    stale: frozenset[str] = frozenset()


class Payer(Protocol):
    """A user for whom symbols are looked up."""

    @property
    def name(self) -> str:
        """Return the user's name."""

    def pay(self, symbols: float) -> float:
        """Charge a lookup of `symbols` symbols; 0 if that is paid, else the seconds to wait."""


class TooManyLookups(Exception):
    """A user asks for too many symbols, and none was looked up. Ask again after `wait` seconds."""

    def __init__(self, wait: float) -> None:
        super().__init__("too many symbols that are not in memory, ask for fewer or slower")
        self.wait = wait


class Flight:
    """The search for one symbol, for the user `payer` or, if None, for the server itself.

    `failed`: neither cache nor database could tell whether the symbol exists. `round` grows when the
    search starts over: the results of earlier rounds are outdated.
    """

    __slots__ = ("done", "failed", "payer", "round", "snapshot")

    def __init__(self, payer: str | None) -> None:
        self.payer = payer
        self.done = trio.Event()
        self.round = 0
        self.failed = False
        self.snapshot: Snapshot | None = None


@dataclass(kw_only=True)
class Loader:
    """Loads snapshots for all parts of the server.

    `live` returns a symbol's snapshot while it is in memory. `database` has the catalogue's
    breaker. `ttl` is in seconds. The loader remembers `size` symbols, to serve them while the
    database is down. `last_opening` returns the opening of the newest session.
    """

    catalogue: Catalogue
    cache: Cache
    live: Callable[[str], Snapshot | None]
    database: Component
    stats: StoreStats
    ttl: float
    size: int
    last_opening: Callable[[], int] = lambda: 0
    _flights: dict[str, Flight] = field(default_factory=dict)
    _to_write: dict[str, Snapshot] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._flights_by_user: Counter[str] = Counter()
        self._known: TtlLru[Snapshot] = TtlLru(self.size)
        self._unknown: TtlLru[None] = TtlLru(UNKNOWN_SYMBOLS)
        self._wake_writer = trio.Event()
        self._lookups = Batcher(
            self._look_up, self._fail, window=0, max_keys=BATCH_ROWS, max_running=MAX_LOOKUPS
        )
        self._queries = Batcher(
            self._query,
            self._fail,
            window=QUERY_WINDOW,
            max_keys=BATCH_ROWS,
            max_running=MAX_QUERIES,
        )

    async def run(self) -> None:
        """Look up, query and write to the cache until cancelled."""
        async with trio.open_nursery() as tasks:
            tasks.start_soon(self._lookups.run)
            tasks.start_soon(self._queries.run)
            tasks.start_soon(self._write)

    async def load(
        self,
        symbols: Iterable[str],
        timeout: float = LOAD_TIMEOUT,  # noqa: ASYNC109 (the flights go on without the caller)
        *,
        payer: Payer | None = None,
    ) -> Loaded:
        """Find the snapshots of normalized `symbols`, within `timeout` seconds.

        The loader charges `payer` for symbols that are not in memory, all or none. Errors:
        TooManyLookups.
        """
        found: dict[str, Snapshot] = {}
        unknown: list[str] = []
        misses: list[str] = []
        for symbol in dict.fromkeys(symbols):
            if snapshot := self.live(symbol):
                self.stats.live += 1
                found[symbol] = snapshot
            elif self._is_unknown(symbol):
                self.stats.negative += 1
                unknown.append(symbol)
            else:
                misses.append(symbol)
        if not misses:
            return Loaded(found, unknown)
        if payer is not None:
            self._charge(payer, misses)
        flights = {symbol: self._join(symbol, payer) for symbol in misses}
        with trio.move_on_after(timeout):
            for flight in flights.values():
                await flight.done.wait()
        return self._collect(found, unknown, flights)

    @property
    def remembers(self) -> bool:
        """Return whether it can serve any symbol without cache and database."""
        return len(self._known) > 0

    def invalidate(self, symbols: Iterable[str]) -> None:
        """Forget all that this process remembers of `symbols`, and restart their flights."""
        symbols = list(symbols)
        self._known.discard(symbols)
        self._unknown.discard(symbols)
        for symbol in symbols:
            self._to_write.pop(symbol, None)
            if flight := self._flights.get(symbol):
                # The waiting requests get the new round's result.
                flight.round += 1
                self._lookups.add([symbol])

    def forget_unknown(self) -> None:
        """Forget which symbols do not exist."""
        self._unknown.clear()

    def remember(self, snapshots: Iterable[Snapshot]) -> None:
        """Queue `snapshots`, which are newer than the catalogue's, for the cache."""
        for snapshot in snapshots:
            self._known.put(snapshot.symbol, snapshot, self.ttl)
            self._write_later(snapshot)

    def _is_unknown(self, symbol: str) -> bool:
        kept = self._unknown.get(symbol)
        return not is_symbol(symbol) or (kept is not None and kept.lifetime > 0)

    def _charge(self, payer: Payer, misses: Sequence[str]) -> None:
        """Charge `misses` if there is room for their flights. Errors: TooManyLookups."""
        new = sum(symbol not in self._flights for symbol in misses)
        left = MAX_FLIGHTS - len(self._flights) - new
        if new and self._flights_by_user[payer.name] + new > left:
            raise TooManyLookups(FLIGHT_WAIT)
        if wait := payer.pay(len(misses)):
            raise TooManyLookups(wait)

    def _join(self, symbol: str, payer: Payer | None) -> Flight:
        if flight := self._flights.get(symbol):
            self.stats.collapsed += 1
            return flight
        flight = Flight(payer.name if payer else None)
        if len(self._flights) >= MAX_FLIGHTS:
            flight.failed = True
            flight.done.set()
        else:
            self._flights[symbol] = flight
            if payer:
                self._flights_by_user[payer.name] += 1
            self._lookups.add([symbol])
        return flight

    def _land(self, symbol: str) -> Flight | None:
        """Remove and return the symbol's flight; None if there is none."""
        flight = self._flights.pop(symbol, None)
        if flight and flight.payer is not None:
            self._flights_by_user[flight.payer] -= 1
            if not self._flights_by_user[flight.payer]:
                del self._flights_by_user[flight.payer]
        return flight

    def _collect(
        self, found: dict[str, Snapshot], unknown: list[str], flights: dict[str, Flight]
    ) -> Loaded:
        stale, unavailable = set(), []
        for symbol, flight in flights.items():
            if flight.done.is_set() and not flight.failed:
                if flight.snapshot:
                    found[symbol] = in_session(flight.snapshot, self.last_opening())
                else:
                    unknown.append(symbol)
            elif kept := self._known.get(symbol):
                found[symbol] = in_session(kept.value, self.last_opening())
                if kept.lifetime <= 0:
                    stale.add(symbol)
            else:
                unavailable.append(symbol)
        self.stats.stale += len(stale)
        return Loaded(found, unknown, unavailable, frozenset(stale))

    async def _look_up(self, symbols: Sequence[str]) -> None:
        rounds = self._rounds(symbols)
        try:
            cached = await self.cache.get_many(symbols)
            self.stats.hits += len(cached)
            self.stats.misses += len(symbols) - len(cached)
        except StoreUnavailable:
            cached = {}
            self.stats.errors += len(symbols)
        for symbol, kept in cached.items():
            if self._settle(symbol, rounds.get(symbol), kept.value):
                self._known.put(symbol, kept.value, kept.lifetime)
        self._queries.add(symbol for symbol in symbols if symbol not in cached)

    async def _query(self, symbols: Sequence[str]) -> None:
        rounds = self._rounds(symbols)
        try:
            found = await self.database.ask(partial(self.catalogue.find, symbols))
        except StoreUnavailable:
            self._fail(symbols)
            return
        rows = {row.symbol: row for row in found}
        for symbol in symbols:
            row = rows.get(symbol)
            if not self._settle(symbol, rounds.get(symbol), row):
                continue
            if row is None:
                self._unknown.put(symbol, None, UNKNOWN_TTL)
            else:
                self._known.put(symbol, row, jittered(self.ttl))
                self._write_later(row)

    def _rounds(self, symbols: Sequence[str]) -> dict[str, int]:
        return {
            symbol: self._flights[symbol].round for symbol in symbols if symbol in self._flights
        }

    def _settle(self, symbol: str, round: int | None, snapshot: Snapshot | None) -> bool:
        """Give the result of `round` to the waiting requests; False if it may be outdated."""
        flight = self._flights.get(symbol)
        if flight is None or flight.round != round:
            return False
        self._land(symbol)
        flight.snapshot = snapshot
        flight.done.set()
        return True

    def _fail(self, symbols: Sequence[str]) -> None:
        for symbol in symbols:
            if flight := self._land(symbol):
                flight.failed = True
                flight.done.set()

    def _write_later(self, snapshot: Snapshot) -> None:
        if len(self._to_write) >= WAITING_WRITES and snapshot.symbol not in self._to_write:
            self.stats.dropped_writes += 1
            return
        self._to_write[snapshot.symbol] = snapshot
        self._wake_writer.set()

    async def _write(self) -> None:
        while True:
            await self._wake_writer.wait()
            self._wake_writer = trio.Event()
            await self.write_cache()

    async def write_cache(self) -> None:
        """Write all waiting snapshots to the cache, or drop them if the cache fails."""
        while self._to_write:
            batch = dict(islice(self._to_write.items(), BATCH_ROWS))
            try:
                await self.cache.set_many([*batch.values()], self.ttl)
            except StoreUnavailable:
                self.stats.dropped_writes += len(batch)
            # Symbols invalidated meanwhile: the write may have come after their deletion.
            outdated = []
            for symbol, snapshot in batch.items():
                if self._to_write.get(symbol) is snapshot:
                    del self._to_write[symbol]
                else:
                    outdated.append(symbol)
            if outdated:
                with suppress(StoreUnavailable):
                    await self.cache.delete_many(outdated)
