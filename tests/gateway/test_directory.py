"""The directory between the hub, which has some symbols, and the store, which has all."""

from collections.abc import Iterable, Sequence
from typing import Any, cast

import pytest
import trio

from server.fanout.hub import Hub
from server.gateway import directory as module
from server.gateway.directory import PAGE_TIMEOUT, Directory
from server.quotes.snapshot import Snapshot, opening_snapshot
from server.store.catalogue import StoreUnavailable
from server.store.loader import Loaded
from tests.fanout.peer import instruments


def snapshots(symbols: Iterable[str]) -> list[Snapshot]:
    return [opening_snapshot(each) for each in instruments(*symbols)]


class Store:
    """Loader and catalogue of a store with `symbols`; its database answers after `seconds`."""

    def __init__(self, *symbols: str, seconds: float = 0.0) -> None:
        self.symbols = sorted(symbols)
        self.payers: list[object] = []
        self.pages: list[str] = []
        self._seconds = seconds

    async def load(self, symbols: Sequence[str], *, payer: object = None) -> Loaded:
        self.payers.append(payer)
        found = {each.symbol: each for each in snapshots(set(symbols) & set(self.symbols))}
        return Loaded(found, unavailable=[each for each in symbols if each.startswith("ODD")])

    async def page(self, after: str, limit: int) -> list[Snapshot]:
        self.pages.append(after)
        await trio.sleep(self._seconds)
        return snapshots([each for each in self.symbols if each > after][:limit])


class Cluster:
    """Notes what the instances agree on and what they forget."""

    def __init__(self) -> None:
        self.agreed: list[str] = []
        self.forgotten: list[str] = []

    async def agree(self, snapshots: Sequence[Snapshot]) -> None:
        self.agreed += [each.symbol for each in snapshots]

    async def forget(self, symbols: Sequence[str]) -> None:
        self.forgotten += symbols


def make(store: Store, *listed: str, cluster: Cluster | None = None) -> tuple[Hub, Directory]:
    """Return a hub that has the symbols `listed`, and its directory."""
    hub = Hub(instruments(*listed))
    return hub, Directory(hub, cast("Any", store), cast("Any", store), cluster)


async def test_symbols_are_listed_when_somebody_asks_for_them():
    """The user pays for the lookups. Symbols that do not exist or were delisted are not listed, and
    the caller learns about which symbols the store could not tell.
    """
    store = Store("AAPL", "GONE", "MSFT")
    hub, directory = make(store, "GONE")
    hub.delist(["GONE"])
    assert await directory.list_symbols(["AAPL", "GONE", "NOPE", "ODD"], cast("Any", "ann")) == [
        "ODD"
    ]
    assert set(hub.topics) == {"AAPL"}
    assert store.payers == ["ann"]


async def test_instances_of_a_cluster_agree_first():
    """The hub has no price of its own for them. All instances forget a delisted symbol."""
    cluster = Cluster()
    hub, directory = make(Store("AAPL", "MSFT"), "MSFT", cluster=cluster)
    await directory.list_symbols(["AAPL"])
    await directory.list_everything()
    await directory.relist(snapshots(["NEW"]))
    assert cluster.agreed == ["AAPL", "AAPL", "MSFT", "NEW"]
    assert set(hub.topics) == {"MSFT"}
    await directory.delist(["MSFT"])
    assert cluster.forgotten == ["MSFT"]
    assert set(hub.topics) == set()


async def test_whole_catalogue_is_read_once_in_pages(monkeypatch, autojump_clock):
    """Clients that ask for everything at the same time wait for the same pages."""
    monkeypatch.setattr(module, "BATCH_ROWS", 3)
    for symbols, pages in (("ABCD", ["", "C"]), ("ABCDEF", ["", "C", "F"]), ("", [""])):
        store = Store(*symbols, seconds=0.1)
        hub, directory = make(store, "Z")
        assert not directory.complete
        async with trio.open_nursery() as clients:
            for _ in range(3):
                clients.start_soon(directory.list_everything)
        assert directory.complete
        assert set(hub.topics) == {*symbols, "Z"}
        await directory.list_everything()
        assert store.pages == pages


async def test_slow_database_gives_no_whole_catalogue(autojump_clock):
    """A client is told so before its handshake is given up. The next one asks again."""
    store = Store("AAPL", seconds=PAGE_TIMEOUT + 1)
    _, directory = make(store)
    begun = trio.current_time()
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match=r"^the catalogue could not be read in time$"):
            await directory.list_everything()
    assert trio.current_time() - begun == pytest.approx(2 * PAGE_TIMEOUT)
    assert store.pages == ["", ""]
    assert not directory.complete


async def test_changes_concern_symbols_that_are_or_were_listed(autojump_clock):
    """Once the whole catalogue is listed, or is about to be, they concern every symbol."""
    hub, directory = make(Store(seconds=1.0), "AAPL", "GONE")
    hub.delist(["GONE"])
    assert [directory.holds(each) for each in ("AAPL", "GONE", "MSFT")] == [True, True, False]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(directory.list_everything)
        await trio.testing.wait_all_tasks_blocked()
        assert directory.holds("MSFT")
        assert not directory.complete
    assert directory.holds("MSFT")
    assert directory.complete
