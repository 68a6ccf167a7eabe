"""The loader's counts and bounds, on a clock that jumps."""

from functools import partial

import pytest
import trio
import trio.testing

from server.store import loader as loader_module
from server.store.catalogue import BATCH_ROWS, StoreUnavailable
from server.store.loader import UNKNOWN_TTL, TooManyLookups
from tests.store.conftest import instrument
from tests.store.test_loader import TTL, LoaderHarness, User


@pytest.fixture
async def harness(nursery):
    made = LoaderHarness()
    nursery.start_soon(made.loader.run)
    return made


async def unavailable(*_):
    raise StoreUnavailable("away")


async def test_every_symbol_is_counted_where_it_was_found(autojump_clock, harness):
    """Live, in the cache, in neither, known not to exist: symbols, not requests."""
    await harness.load("AAPL", "MSFT", "NO", "NOPE")
    await trio.testing.wait_all_tasks_blocked()
    for _ in range(2):
        await harness.load("AAPL", "MSFT", "NO", "NOPE")
    [harness.live["AAPL"]] = await harness.catalogue.find(["AAPL"])
    [harness.live["MSFT"]] = await harness.catalogue.find(["MSFT"])
    await harness.load("AAPL", "MSFT")
    await harness.load("AAPL", "AAPL")
    stats = harness.stats
    assert (stats.live, stats.hits, stats.misses, stats.negative) == (3, 4, 4, 4)
    assert (stats.errors, stats.collapsed, stats.stale, stats.dropped_writes) == (0, 0, 0, 0)


async def test_symbols_looked_for_already_are_counted(autojump_clock, harness):
    """Two others wait for each of the first one's symbols."""
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(harness.load, "AAPL", "MSFT")
    assert harness.stats.collapsed == 4
    assert harness.stats.misses == 2


async def test_failures_of_the_cache_are_counted(autojump_clock, harness, monkeypatch):
    """Symbols are loaded all the same, whether it cannot be read or not be written."""
    monkeypatch.setattr(harness.cache, "get_many", unavailable)
    monkeypatch.setattr(harness.cache, "set_many", unavailable)
    for symbols in (["AAPL", "MSFT"], ["AAPL"]):
        assert list((await harness.load(*symbols)).found) == symbols
        await trio.testing.wait_all_tasks_blocked()
    assert harness.stats.errors == 3
    assert harness.stats.dropped_writes == 3


async def test_writes_for_which_there_is_no_room_are_counted(autojump_clock, harness, monkeypatch):
    """Each of them; a newer snapshot of a symbol that waits already needs no room."""
    monkeypatch.setattr(loader_module, "WAITING_WRITES", 1)
    rows = await harness.catalogue.find(["AAPL", "MSFT"])
    for _ in range(3):
        harness.loader.remember(rows)
    assert harness.stats.dropped_writes == 3


async def test_cache_is_written_in_batches(autojump_clock, harness, monkeypatch):
    """None is larger than a query."""
    sizes = []

    async def take(snapshots, ttl):
        sizes.append(len(snapshots))
        assert ttl == TTL

    monkeypatch.setattr(harness.cache, "set_many", take)
    names = [f"S{number}" for number in range(BATCH_ROWS + 10)]
    await harness.catalogue.upsert([instrument(name) for name in names], lambda _: None)
    harness.loader.remember(await harness.catalogue.find(names))
    await trio.testing.wait_all_tasks_blocked()
    assert sizes == [BATCH_ROWS, 10]


async def test_stale_prices_are_counted_each_time(autojump_clock, harness):
    """A price is stale after its TTL, not a moment before."""
    rows = await harness.catalogue.find(["AAPL", "MSFT"])
    harness.loader.remember(rows)
    await trio.testing.wait_all_tasks_blocked()
    await harness.cache.delete_many(["AAPL", "MSFT"])
    harness.catalogue.down = True
    await trio.sleep(TTL - 0.5)
    assert (await harness.load("AAPL", "MSFT")).stale == frozenset()
    await trio.sleep(1)
    for _ in range(2):
        assert (await harness.load("AAPL", "MSFT")).stale == {"AAPL", "MSFT"}
    assert harness.stats.stale == 4


async def test_unknown_symbol_is_asked_for_again_after_its_time_only(autojump_clock, harness):
    """Half a second before, it is still known not to exist."""
    await harness.load("NOPE")
    await trio.sleep(UNKNOWN_TTL - 0.5)
    await harness.load("NOPE")
    assert harness.catalogue.asked == [["NOPE"]]


async def test_refusal_says_what_to_do(autojump_clock, harness):
    """A client is sent this."""
    user = User("ann")
    user.wait = 3.0
    with pytest.raises(TooManyLookups) as refused:
        await harness.loader.load(["MSFT"], payer=user)
    assert str(refused.value) == (
        "too many symbols that are not in memory, ask for fewer or slower"
    )


async def test_places_are_given_back_one_by_one(autojump_clock, harness, monkeypatch):
    """A user two of whose four symbols were found has two places left of those it had."""
    monkeypatch.setattr(loader_module, "MAX_FLIGHTS", 12)
    await harness.load("AAPL", "MSFT")
    await trio.testing.wait_all_tasks_blocked()
    harness.catalogue.delay = 1.0
    user = User("ann")

    async with trio.open_nursery() as nursery:
        names = ["AAPL", "MSFT", "ONE", "TWO"]
        nursery.start_soon(partial(harness.loader.load, names, payer=user))
        await trio.sleep(0.5)
        # Two places are taken, and of the ten others as many are to be left as the user then has.
        with pytest.raises(TooManyLookups):
            await harness.loader.load([f"S{number}" for number in range(5)], payer=user)
        nursery.start_soon(
            partial(harness.loader.load, [f"S{number}" for number in range(4)], payer=user)
        )


async def test_invalidated_twice_while_loading(autojump_clock, harness):
    """Only what is looked up after the last invalidation counts."""
    harness.catalogue.delay = 1.0
    answers = []

    async def ask():
        answers.append(await harness.load("AAPL", within=9))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        for name in ("Renamed", "Renamed again"):
            await trio.sleep(0.5)
            await harness.catalogue.upsert([instrument("AAPL", name)], lambda _: None)
            harness.loader.invalidate(["AAPL"])
    assert answers[0].found["AAPL"].name == "Renamed again"


async def test_one_is_invalidated_and_the_others_are_found(autojump_clock, harness):
    """The other symbols of the same query are up to date."""
    harness.catalogue.delay = 1.0
    begun = trio.current_time()
    times = {}

    async def ask(symbol):
        assert set((await harness.load(symbol, within=9)).found) == {symbol}
        times[symbol] = round(trio.current_time() - begun, 1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(harness.load, "AAPL", "MSFT", within=9))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(ask, "AAPL")
        nursery.start_soon(ask, "MSFT")
        await trio.sleep(0.5)
        harness.loader.invalidate(["AAPL"])
    assert times == {"AAPL": 1.5, "MSFT": 1.0}
    assert harness.catalogue.asked == [["AAPL", "MSFT"], ["AAPL"]]


async def test_outdated_answer_is_not_kept(autojump_clock, harness):
    """A symbol that was delisted while it was looked up is neither cached nor remembered."""
    harness.catalogue.delay = 1.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(harness.load, "AAPL")
        await trio.sleep(0.5)
        await harness.catalogue.delist(["AAPL"])
        harness.loader.invalidate(["AAPL"])
    await trio.sleep(3)
    assert not harness.loader.remembers
    assert await harness.cache.get_many(["AAPL"]) == {}


async def test_late_failure_hurts_nobody(autojump_clock, harness, monkeypatch):
    """A query that an invalidation made outdated fails when its symbol was found long ago."""
    find = harness.catalogue.find
    first = True

    async def fail_first(symbols):
        nonlocal first
        if first:
            first = False
            await trio.sleep(1)
            raise StoreUnavailable("down")
        return await find(symbols)

    monkeypatch.setattr(harness.catalogue, "find", fail_first)
    answers = []

    async def ask():
        answers.append(await harness.load("AAPL"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.sleep(0.5)
        harness.loader.invalidate(["AAPL"])
    assert set(answers[0].found) == {"AAPL"}
    await trio.sleep(2)
    assert set((await harness.load("MSFT")).found) == {"MSFT"}
