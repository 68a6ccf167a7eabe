"""How a snapshot is found: live, then cached, then in the catalogue, each asked once for many.

A symbol that is asked for by many at once is one *flight*: the first to ask starts it, the others
wait for the same event. It belongs to nobody who waits, so that whoever gives up takes nothing from
the others; the lookups run in the loader's own tasks.
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
from server.quotes.snapshot import Snapshot
from server.store.batcher import Batcher
from server.store.cache import Cache, jittered
from server.store.catalogue import BATCH_ROWS, Catalogue, StoreUnavailable
from server.store.component import Component
from server.store.stats import StoreStats
from server.store.ttl_lru import TtlLru

LOAD_TIMEOUT = 2.0
"""Seconds whoever asks waits, unless it says otherwise; a client waits five for its handshake."""

QUERY_WINDOW = 0.0015
"""Seconds over which symbols are gathered for one query: less than the query itself takes."""

MAX_LOOKUPS = 8
"""Lookups in the cache at a time."""

MAX_QUERIES = 4
"""Queries at a time: a part of the pool, so that searches and write-back find a place."""

MAX_FLIGHTS = 20_000
"""Symbols being looked for, of which one request can name 8,000; more are refused at once, and do
not pile up before a database that cannot keep up. A user may have as many as are left free then: one
alone gets half of them, ten an eleventh each, and there is always room for another.
"""

FLIGHT_WAIT = 1.0
"""Seconds after which a user whose flights are too many may ask again: lookups take milliseconds."""

UNKNOWN_TTL = 10.0
"""Seconds for which a symbol that does not exist is taken not to."""

UNKNOWN_SYMBOLS = 20_000
"""Symbols that are remembered not to exist, some 2 MB."""

WAITING_WRITES = 10_000
"""Snapshots that wait to be written to the cache; more are dropped, which costs another query."""


class Loaded(NamedTuple):
    """What became of each symbol: in exactly one of `found`, `unknown` and `unavailable`.

    `stale` are those of `found` that are past their TTL, as the database could not be asked.
    """

    found: Mapping[str, Snapshot]
    unknown: Sequence[str] = ()
    unavailable: Sequence[str] = ()
    stale: frozenset[str] = frozenset()


class Payer(Protocol):
    """A user for whom symbols are looked up."""

    @property
    def name(self) -> str:
        """The user's name."""

    def pay(self, symbols: float) -> float:
        """Charge a lookup of so many symbols; 0 if that is paid, else the seconds until it can be."""


class TooManyLookups(Exception):
    """A user has too many symbols looked up; nothing was. Ask again after `wait` seconds."""

    def __init__(self, wait: float) -> None:
        super().__init__("too many symbols that are not in memory, ask for fewer or slower")
        self.wait = wait


class Flight:
    """A symbol that is being looked for, for the user `payer`, or for the server itself. `failed`:
    nobody could say whether it exists; `round` grows when it is looked for anew, and what an earlier
    round finds is outdated.
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
    """`live` gives a symbol's snapshot while it is in memory; `ttl` is in seconds; `database` is the
    component whose breaker is asked before the catalogue is; `size` symbols are kept for the time
    when nothing can be loaded.
    """

    catalogue: Catalogue
    cache: Cache
    live: Callable[[str], Snapshot | None]
    database: Component
    stats: StoreStats
    ttl: float
    size: int
    _flights: dict[str, Flight] = field(default_factory=dict)
    _to_write: dict[str, Snapshot] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._places: Counter[str] = Counter()  # flights by user
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
        timeout: float = LOAD_TIMEOUT,  # noqa: ASYNC109 (the others go on)
        *,
        payer: Payer | None = None,
    ) -> Loaded:
        """Find the snapshots of normalized `symbols`, within `timeout` seconds.

        Symbols that are not in memory are charged to `payer`, all or none. Errors: TooManyLookups.
        """
        found: dict[str, Snapshot] = {}
        unknown: list[str] = []
        cold: list[str] = []
        for symbol in dict.fromkeys(symbols):
            if snapshot := self.live(symbol):
                self.stats.live += 1
                found[symbol] = snapshot
            elif self._is_unknown(symbol):
                self.stats.negative += 1
                unknown.append(symbol)
            else:
                cold.append(symbol)
        if not cold:
            return Loaded(found, unknown)
        if payer is not None:
            self._charge(payer, cold)
        flights = {symbol: self._join(symbol, payer) for symbol in cold}
        with trio.move_on_after(timeout):
            for flight in flights.values():
                await flight.done.wait()
        return self._collect(found, unknown, flights)

    @property
    def remembers(self) -> bool:
        """Whether there are symbols that it can give without asking anybody."""
        return len(self._known) > 0

    def invalidate(self, symbols: Iterable[str]) -> None:
        """Forget what this process remembers of `symbols`, also of a load that is under way."""
        symbols = list(symbols)
        self._known.discard(symbols)
        self._unknown.discard(symbols)
        for symbol in symbols:
            self._to_write.pop(symbol, None)
            if flight := self._flights.get(symbol):
                flight.round += 1  # those who wait get what is looked up from now on
                self._lookups.add([symbol])

    def forget_unknown(self) -> None:
        """Forget which symbols do not exist."""
        self._unknown.clear()

    def remember(self, snapshots: Iterable[Snapshot]) -> None:
        """Cache newer snapshots than the catalogue gave, without waiting for that."""
        for snapshot in snapshots:
            self._known.put(snapshot.symbol, snapshot, self.ttl)
            self._write_later(snapshot)

    def _is_unknown(self, symbol: str) -> bool:
        kept = self._unknown.get(symbol)
        return not is_symbol(symbol) or (kept is not None and kept.lifetime > 0)

    def _charge(self, payer: Payer, cold: Sequence[str]) -> None:
        """Charge `cold`, for whose flights there is room. Errors: TooManyLookups."""
        new = sum(symbol not in self._flights for symbol in cold)
        left = MAX_FLIGHTS - len(self._flights) - new
        if new and self._places[payer.name] + new > left:
            raise TooManyLookups(FLIGHT_WAIT)
        if wait := payer.pay(len(cold)):
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
                self._places[payer.name] += 1
            self._lookups.add([symbol])
        return flight

    def _land(self, symbol: str) -> Flight | None:
        """Take a flight out, and give its place back; None if there is none."""
        flight = self._flights.pop(symbol, None)
        if flight and flight.payer is not None:
            self._places[flight.payer] -= 1
            if not self._places[flight.payer]:
                del self._places[flight.payer]
        return flight

    def _collect(
        self, found: dict[str, Snapshot], unknown: list[str], flights: dict[str, Flight]
    ) -> Loaded:
        stale, unavailable = set(), []
        for symbol, flight in flights.items():
            if flight.done.is_set() and not flight.failed:
                if flight.snapshot:
                    found[symbol] = flight.snapshot
                else:
                    unknown.append(symbol)
            elif kept := self._known.get(symbol):
                found[symbol] = kept.value
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
        """Tell those who wait what `round` found; False if that may be outdated."""
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
        """Write what waits to be written to the cache, or drop it where the cache takes nothing."""
        while self._to_write:
            batch = dict(islice(self._to_write.items(), BATCH_ROWS))
            try:
                await self.cache.set_many([*batch.values()], self.ttl)
            except StoreUnavailable:
                self.stats.dropped_writes += len(batch)
            outdated = []  # meanwhile: it may have been written after it was deleted
            for symbol, snapshot in batch.items():
                if self._to_write.get(symbol) is snapshot:
                    del self._to_write[symbol]
                else:
                    outdated.append(symbol)
            if outdated:
                with suppress(StoreUnavailable):
                    await self.cache.delete_many(outdated)
