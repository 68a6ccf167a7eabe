"""The loader's rules on a clock that jumps: its lookups and its memory."""

from functools import partial

import msgspec
import pytest
import trio
import trio.testing

from server.fanout.hub import Hub
from server.gateway.directory import Directory
from server.quotes.snapshot import Snapshot
from server.store import loader as loader_module
from server.store.cache import jittered
from server.store.cache_memory import MemoryCache
from server.store.catalogue import StoreUnavailable
from server.store.catalogue_memory import MemoryCatalogue
from server.store.changes import Changes
from server.store.component import Component
from server.store.loader import UNKNOWN_TTL, Loader, TooManyLookups
from server.store.stats import StoreStats
from tests.store.conftest import instrument

TTL = 100.0


class Catalogue(MemoryCatalogue):
    """A catalogue in memory that can be down or slow, and records its queries."""

    def __init__(self) -> None:
        super().__init__([instrument("AAPL"), instrument("MSFT")])
        self.asked: list[list[str]] = []
        self.down = False
        self.delay = 0.0

    async def find(self, symbols):
        self.asked.append(sorted(symbols))
        found = await super().find(symbols)
        await trio.sleep(self.delay)
        if self.down:
            raise StoreUnavailable("down")
        return found


class LoaderHarness:
    """A running loader over `catalogue`, with a cache that can fail."""

    def __init__(self, size: int = 100) -> None:
        self.catalogue = Catalogue()
        self.cache = MemoryCache(size)
        self.stats = StoreStats()
        self.live: dict[str, Snapshot] = {}
        self.database = Component("catalogue", "test")
        self.loader = Loader(
            catalogue=self.catalogue,
            cache=self.cache,
            live=self.live.get,
            database=self.database,
            stats=self.stats,
            ttl=TTL,
            size=size,
        )

    async def load(self, *symbols, within=2.0):
        return await self.loader.load(symbols, within)


@pytest.fixture
async def harness(nursery):
    made = LoaderHarness()
    nursery.start_soon(made.loader.run)
    return made


async def test_requests_within_the_window_share_a_query(autojump_clock, harness):
    """Two requests for different symbols, a moment apart, are one query; an hour apart, two."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(harness.load, "AAPL")
        await trio.sleep(0.001)
        nursery.start_soon(harness.load, "MSFT")
    assert harness.catalogue.asked == [["AAPL", "MSFT"]]


async def test_live_state_comes_first(autojump_clock, harness):
    """Symbols in memory are neither looked up nor queried."""
    [row] = await harness.catalogue.find(["AAPL"])
    harness.catalogue.asked.clear()
    harness.live["AAPL"] = msgspec.structs.replace(row, last_quote=42.0)
    loaded = await harness.load("AAPL")
    assert loaded.found["AAPL"].last_quote == 42.0
    assert harness.catalogue.asked == []
    assert harness.stats.live == 1


async def test_cached_until_its_time_is_over(autojump_clock, harness):
    """A symbol is a hit within nine tenths of the TTL, and queried after the whole of it."""
    await harness.load("AAPL")
    await trio.sleep(TTL * 0.89)
    await harness.load("AAPL")
    assert len(harness.catalogue.asked) == 1
    assert (harness.stats.hits, harness.stats.misses) == (1, 1)
    await trio.sleep(TTL * 0.12)
    assert (await harness.load("AAPL")).stale == frozenset()
    assert len(harness.catalogue.asked) == 2


async def test_expiry_is_spread():
    """Values cached together expire at different times, within the last tenth of the TTL."""
    lifetimes = [jittered(TTL) for _ in range(1000)]
    assert TTL * 0.9 <= min(lifetimes) < TTL * 0.92
    assert TTL * 0.98 < max(lifetimes) <= TTL


async def test_unknown_symbols_are_remembered_for_a_while(autojump_clock, harness):
    """Unknown symbols are not queried again for a while. Later they may exist."""
    assert (await harness.load("NOPE")).unknown == ["NOPE"]
    await harness.load("NOPE")
    assert harness.catalogue.asked == [["NOPE"]]
    await trio.sleep(UNKNOWN_TTL + 1)
    await harness.load("NOPE")
    assert len(harness.catalogue.asked) == 2


async def test_what_can_be_no_symbol_is_not_looked_up(autojump_clock, harness):
    """Texts that are too long, unprintable or `*` are not looked up."""
    odd = ("x" * 51, "A\x00", "*", "", "\ud800")
    assert list((await harness.load(*odd)).unknown) == list(odd)
    assert harness.catalogue.asked == []


async def test_memory_of_unknown_symbols_is_bounded(autojump_clock, harness, monkeypatch):
    """The oldest unknown symbols are forgotten first."""
    harness.loader._unknown.size = 10
    for number in range(30):
        await harness.load(f"NOPE{number}")
    assert len(harness.loader._unknown) == 10


async def test_stale_only_while_the_database_is_down(autojump_clock, harness):
    """While the database is down, a known price is served, and is stale only past its TTL.
    Other symbols are unavailable.
    """
    await harness.load("AAPL")
    await harness.cache.delete_many(["AAPL"])
    harness.catalogue.down = True
    loaded = await harness.load("AAPL", "MSFT")
    assert (set(loaded.found), loaded.stale, loaded.unavailable) == (
        {"AAPL"},
        frozenset(),
        ["MSFT"],
    )
    await trio.sleep(TTL * 1.2)
    loaded = await harness.load("AAPL")
    assert loaded.stale == {"AAPL"}
    assert harness.stats.stale == 1
    harness.catalogue.down = False
    await trio.sleep(10)
    assert (await harness.load("AAPL", "MSFT")).stale == frozenset()


async def test_each_waits_no_longer_than_it_will(autojump_clock, harness):
    """With a slow database, each request keeps its own deadline. The late answer serves the next."""
    harness.catalogue.delay = 5.0
    start = trio.current_time()
    assert (await harness.load("AAPL", within=1)).unavailable == ["AAPL"]
    assert trio.current_time() - start == pytest.approx(1, abs=0.01)
    await trio.sleep(5)
    assert set((await harness.load("AAPL", within=1)).found) == {"AAPL"}
    assert len(harness.catalogue.asked) == 1


async def test_a_failing_database_is_left_alone(autojump_clock, harness):
    """After three failures, the database is not asked for a while, and requests fail at once."""
    harness.catalogue.down = True
    for _ in range(6):
        await harness.load("AAPL")
    assert len(harness.catalogue.asked) == 3
    assert harness.database.breaker == "open"
    await trio.sleep(5)
    assert harness.database.breaker == "half_open"
    harness.catalogue.down = False
    assert set((await harness.load("AAPL")).found) == {"AAPL"}
    assert harness.database.breaker == "closed"


async def test_too_many_symbols_at_once_are_refused(autojump_clock, harness, monkeypatch):
    """Lookups in flight continue. One symbol more is unavailable at once."""
    monkeypatch.setattr(loader_module, "MAX_FLIGHTS", 1)
    harness.catalogue.delay = 1.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(harness.load, "AAPL")
        await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()
        assert (await harness.load("MSFT")).unavailable == ["MSFT"]
        assert trio.current_time() == start


class User:
    """A payer that pays for every lookup until the test sets a wait."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.paid = 0.0
        self.wait = 0.0

    def pay(self, symbols: float) -> float:
        self.paid += 0 if self.wait else symbols
        return self.wait


async def test_a_user_takes_no_places_of_others(autojump_clock, harness, monkeypatch):
    """A single user gets half of the flights. The next user gets its share, and so does the server."""
    monkeypatch.setattr(loader_module, "MAX_FLIGHTS", 100)
    harness.catalogue.delay = 1.0
    hog, other = User("hog"), User("other")

    async with trio.open_nursery() as nursery:
        for user, places in ((hog, 50), (other, 25)):
            symbols = [f"{user.name}{number}".upper() for number in range(places)]
            nursery.start_soon(partial(harness.loader.load, symbols, payer=user))
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(TooManyLookups):
                await harness.loader.load(["ONE MORE"], payer=user)
        nursery.start_soon(partial(harness.loader.load, ["HOG1"], payer=other))  # needs no place
        assert (await harness.load("AAPL")).found
    assert not harness.loader._flights_by_user
    assert (await harness.loader.load(["MSFT"], payer=hog)).found


async def test_lookups_are_charged_all_or_none(autojump_clock, harness):
    """Symbols that are not in memory are charged. Live and unknown ones are free. If the user cannot
    pay, nothing is looked up.
    """
    user = User("ann")
    await harness.loader.load(["AAPL", "NOPE"], payer=user)
    assert user.paid == 2
    await harness.loader.load(["NOPE", "*"], payer=user)
    assert user.paid == 2
    asked = len(harness.catalogue.asked)
    user.wait = 3.0
    with pytest.raises(TooManyLookups) as refused:
        await harness.loader.load(["NOPE", "MSFT", "OTHER"], payer=user)
    assert refused.value.wait == 3.0
    assert len(harness.catalogue.asked) == asked
    assert (await harness.load("MSFT")).found


async def test_invalidated_while_loading(autojump_clock, harness):
    """A load from before the invalidation is outdated: waiting requests get the newer row."""
    harness.catalogue.delay = 1.0
    answers = []

    async def ask():
        answers.append(await harness.load("AAPL", within=5))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.sleep(0.5)
        await harness.catalogue.upsert([instrument("AAPL", "Renamed")], lambda _: None)
        harness.loader.invalidate(["AAPL"])
    assert answers[0].found["AAPL"].name == "Renamed"
    await trio.sleep(1)
    cached = await harness.cache.get_many(["AAPL"])
    assert cached["AAPL"].value.name == "Renamed"


async def test_invalidated_while_it_is_written_to_the_cache(autojump_clock, harness, monkeypatch):
    """A cache write that ends after the deletion leaves nothing in the cache."""
    write = harness.cache.set_many

    async def slowly(snapshots, ttl):
        await trio.sleep(1)
        await write(snapshots, ttl)

    monkeypatch.setattr(harness.cache, "set_many", slowly)
    await harness.load("AAPL", "MSFT")
    await trio.sleep(0.5)
    await harness.cache.delete_many(["AAPL"])
    harness.loader.invalidate(["AAPL"])
    await trio.sleep(2)
    assert set(await harness.cache.get_many(["AAPL", "MSFT"])) == {"MSFT"}


async def test_cached_while_a_change_is_taken_over(autojump_clock, harness, nursery):
    """A snapshot cached with the old name meanwhile is deleted, too."""
    [old] = await harness.catalogue.find(["AAPL"])
    relisted = trio.Event()

    class Holder:
        def holds(self, _):
            return True

        def unchecked(self):
            return []

        async def relist(self, snapshots):
            assert [each.name for each in snapshots] == ["Apple"]
            harness.loader.remember([old])
            await harness.loader.write_cache()
            relisted.set()

    changes = Changes(
        harness.catalogue, harness.database, harness.cache, harness.loader, lambda _: None
    )
    nursery.start_soon(changes.run, Holder())
    await trio.sleep(1)
    await harness.catalogue.upsert([instrument("AAPL", "Apple")], lambda _: None)
    await relisted.wait()
    await trio.testing.wait_all_tasks_blocked()
    assert (await harness.load("AAPL")).found["AAPL"].name == "Apple"


async def test_cached_by_who_has_not_noticed_a_delisting(autojump_clock, harness, nursery):
    """Another instance caches its last price after the delisting: no server lists the symbol again, but
    an import does.
    """
    hub = Hub()
    await nursery.start(hub.run)
    directory = Directory(hub, harness.loader, harness.catalogue)
    changes = Changes(
        harness.catalogue, harness.database, harness.cache, harness.loader, lambda _: None
    )
    nursery.start_soon(changes.run, directory)
    [row] = await harness.catalogue.find(["AAPL"])
    await harness.catalogue.delist(["AAPL"])
    await trio.sleep(3)
    await harness.cache.set_many([row], TTL)
    await directory.list_symbols(["AAPL", "MSFT"])
    assert set(hub.topics) == {"MSFT"}
    await harness.catalogue.upsert([instrument("AAPL")], lambda _: None)
    await trio.sleep(3)
    assert set(hub.topics) == {"AAPL", "MSFT"}


async def test_cache_that_takes_nothing_delays_nobody(autojump_clock, harness, monkeypatch):
    """Answers do not wait for cache writes. Dropped writes are counted."""
    monkeypatch.setattr(loader_module, "WAITING_WRITES", 1)

    async def never(*_):
        await trio.sleep_forever()

    monkeypatch.setattr(harness.cache, "set_many", never)
    start = trio.current_time()
    assert set((await harness.load("AAPL", "MSFT")).found) == {"AAPL", "MSFT"}
    assert trio.current_time() - start < 0.01
    assert harness.stats.dropped_writes == 1


async def test_known_prices_are_bounded(autojump_clock, nursery):
    """The least recently used symbols are forgotten first, in the cache and in the loader's memory."""
    harness = LoaderHarness(size=10)
    nursery.start_soon(harness.loader.run)
    await harness.catalogue.upsert([instrument(f"S{n}") for n in range(30)], lambda _: None)
    for number in range(30):
        await harness.load(f"S{number}")
    await trio.testing.wait_all_tasks_blocked()
    assert len(harness.loader._known) == 10
    assert set(await harness.cache.get_many([f"S{n}" for n in range(30)])) == {
        f"S{n}" for n in range(20, 30)
    }
