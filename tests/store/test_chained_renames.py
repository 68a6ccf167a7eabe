"""Several renames are made between two looks at the catalogue. Each company keeps its subscribers."""

import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

import pytest
import trio

from server.fanout.hub import Hub
from server.gateway.directory import Directory
from server.history.minutes import Minutes
from server.quotes.adjustment import split
from server.store.catalogue import Catalogue
from server.store.commands import import_instruments, run_alone
from server.store.store import StoreOptions, open_store
from tests.gateway.wire import Client
from tests.processes import ServerProcess
from tests.store.conftest import instrument
from tests.store.test_listing import SOON, list_instruments, moved, reads, two_servers, watch

COMPANIES = {"Metaverse": 50, "Facebook": 400, "Fund": 9}
"""The base prices by name. The simulator moves prices by up to one percent of them."""

CHAIN = [("META", "METV"), ("FB", "META")]
"""The second company takes the symbol that the first one gives up."""

SWAP = [("META", "TMP"), ("FB", "META"), ("TMP", "FB")]
"""Both companies exchange their symbols."""


@pytest.fixture
def variables(shared: dict[str, str], tmp_path) -> dict[str, str]:
    """A store with three instruments that two servers share."""
    list_instruments(
        tmp_path, shared, "META,Metaverse,ETF,50,", "FB,Facebook,STOCK,400,", "VOO,Fund,ETF,9,"
    )
    return shared | {"PRICE_UPDATE_INTERVAL": "50ms", "PRICE_WRITE_INTERVAL": "100ms"}


def rename(variables: dict[str, str], renames: Sequence[tuple[str, str]]) -> None:
    """Rename in the database as fast as possible, and tell no server."""
    options = StoreOptions(
        database_url=variables.get("DATABASE_URL", ""), sqlite_path=variables.get("SQLITE_PATH", "")
    )

    async def work(catalogue: Catalogue, stack: object) -> None:
        for old, new in renames:
            await catalogue.rename(old, new)

    trio.run(run_alone, options, work)


def whole(client: Client) -> dict[str, str]:
    """Check that each symbol has the prices of one company, and return the companies by symbol."""
    for symbol, quote in client.quotes.items():
        base = COMPANIES[quote["name"]]
        assert (quote["symbol"], quote["base_price"]) == (symbol, base)
        assert quote["current_price"] == pytest.approx(base, rel=0.011), quote
    return {symbol: quote["name"] for symbol, quote in client.quotes.items()}


def until_it_has(client: Client, companies: dict[str, str]) -> None:
    deadline = time.monotonic() + 2 * SOON
    while whole(client) != companies:
        assert time.monotonic() < deadline, f"it still has {whole(client)}"
        client.receive()


@pytest.mark.parametrize(
    ("renames", "after"),
    [
        (CHAIN, {"METV": "Metaverse", "META": "Facebook"}),
        (SWAP, {"FB": "Metaverse", "META": "Facebook"}),
    ],
)
def test_each_company_keeps_its_subscribers_and_its_price(tmp_path, variables, renames, after):
    """At each moment, on each server, for clients by name and to `*`, prices are the company's own.
    Versions grow, prices go on, and after a restart the store has the same.
    """
    before = {"META": "Metaverse", "FB": "Facebook"}
    wanted = {
        "META": {symbol: name for symbol, name in after.items() if name == "Metaverse"},
        "FB": {symbol: name for symbol, name in after.items() if name == "Facebook"},
        "META,FB": after,
        "*": after | {"VOO": "Fund"},
    }
    with two_servers(tmp_path, variables) as servers, ExitStack() as stack:
        clients = [
            (stack.enter_context(watch(server, symbols)), symbols)
            for server in servers
            for symbols in wanted
        ]
        for client, symbols in clients:
            subscribed = before if symbols == "*" else symbols.split(",")
            until_it_has(client, {each: before[each] for each in subscribed} | only_fund(symbols))
            for symbol in subscribed:
                moved(client, symbol, 5)
        rename(variables, renames)
        for client, symbols in clients:
            until_it_has(client, wanted[symbols])
            for symbol in wanted[symbols]:
                moved(client, symbol, client.versions[symbol] + 2)
                whole(client)
        for server in servers:
            quotes = [each["quote"] for each in server.ask("/quotes?symbols=META,FB,METV")[1]]
            assert {each["symbol"]: each["name"] for each in quotes} == after
        # Servers without Redis make their own prices, and the newest ones stay.
        shared = "REDIS_URL" in variables
        last = clients[3][0].quotes if shared else {}
        volumes = {symbol: quote["volume"] for symbol, quote in last.items()}
        for server in servers:
            server.stop(signal.SIGTERM)
    with ServerProcess(tmp_path, **variables) as server, watch(server, ",".join(after)) as client:
        until_it_has(client, after)
        for symbol in after:
            assert client.quotes[symbol]["volume"] >= volumes.get(symbol, 100)


def only_fund(symbols: str) -> dict[str, str]:
    return {"VOO": "Fund"} if symbols == "*" else {}


@pytest.mark.parametrize("change", ["rename", "split"])
def test_change_right_before_a_stop_loses_no_volume(tmp_path, change):
    """The server looks once more, so the last price gets the new symbol, or is that after the split."""
    variables = {"SQLITE_PATH": str(tmp_path / "quotes.db"), "CATALOGUE": "empty"}
    variables |= {"PRICE_UPDATE_INTERVAL": "50ms", "PRICE_WRITE_INTERVAL": "1h"}
    list_instruments(tmp_path, variables, "FB,Facebook,STOCK,400,")
    with ServerProcess(tmp_path, **variables) as server, watch(server, "FB") as client:
        reads(client, "FB", "Facebook")
        moved(client, "FB", 20)
        if change == "rename":
            rename(variables, [("FB", "META")])
        else:
            split_in_two(variables, "FB")
        volume = client.quotes["FB"]["volume"]
        server.stop(signal.SIGTERM)
    symbol, factor = ("META", 1) if change == "rename" else ("FB", 2)
    with ServerProcess(tmp_path, **variables) as server:
        [entry] = server.ask(f"/quotes?symbols={symbol}")[1]
        assert entry["quote"]["volume"] >= volume * factor


def split_in_two(variables: dict[str, str], symbol: str) -> None:
    async def work(catalogue: Catalogue, stack: object) -> None:
        await catalogue.adjust(symbol, partial(split, ratio="2:1", again=False))

    trio.run(run_alone, StoreOptions(sqlite_path=variables["SQLITE_PATH"]), work)


async def test_store_has_looked_when_it_has_started(tmp_path):
    """So the feed, which starts later, cannot list an old symbol anew."""
    options = StoreOptions(sqlite_path=str(tmp_path / "quotes.db"), shipped=False)
    await import_instruments(options, [instrument("FB")], lambda _: None)
    async with (
        open_store(options, lambda _: None, lambda: (), Minutes()) as store,
        trio.open_nursery() as nursery,
    ):
        await store.catalogue.rename("FB", "META")
        hub = Hub()
        await nursery.start(store.run, Directory(hub, store.loader, store.catalogue))
        assert hub.present_symbol("FB") == "META"
        nursery.cancel_scope.cancel()


def test_feed_s_old_symbol_is_not_listed_anew_after_a_start(tmp_path):
    """The replay's first rows come at once, and have the symbol from before the rename."""
    day = tmp_path / "day.csv"
    rows = "".join(f"{number},FB,{300 + number},1\n" for number in range(1, 9))
    day.write_text(f"timestamp_ms,symbol,price,size\n{rows}")
    variables = {"SQLITE_PATH": str(tmp_path / "quotes.db"), "CATALOGUE": "empty"}
    list_instruments(tmp_path, variables, "FB,Facebook,STOCK,400,")
    rename(variables, [("FB", "META")])
    variables |= {"FEED": f"replay:{day}", "REPLAY_SPEED": "0"}
    with ServerProcess(tmp_path, **variables) as server, watch(server, "*") as client:
        server.await_event("feed ended")
        assert server.ask("/quotes?symbols=FB")[1] == []
        until_traded(client, "META")
        assert client.quotes.keys() == {"META"}


def until_traded(client: Client, symbol: str) -> None:
    deadline = time.monotonic() + SOON
    while client.quotes.get(symbol, {}).get("current_price") != 308:
        assert time.monotonic() < deadline, f"it still has {client.quotes}"
        client.receive()
