"""Several renames are made between two looks at the catalogue. Each company keeps its subscribers."""

import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack

import pytest
import trio

from server.store.catalogue import Catalogue
from server.store.store import StoreOptions, run_alone
from tests.gateway.wire import Client
from tests.processes import ServerProcess
from tests.store.test_listing import SOON, list_instruments, moved, two_servers, watch

COMPANIES = {"Metaverse": 50, "Facebook": 400, "Fund": 9}
"""The base prices by name. The simulator moves prices by up to one percent of them."""

CHAIN = [("META", "METV"), ("FB", "META")]
"""The second company takes the symbol that the first one gives up."""

SWAP = [("META", "TMP"), ("FB", "META"), ("TMP", "FB")]
"""Both companies exchange their symbols."""


@pytest.fixture(params=["sqlite", "postgres", "postgres and redis"])
def variables(request, tmp_path) -> dict[str, str]:
    """A store with three instruments that two servers share."""
    if request.param == "sqlite":
        variables = {"SQLITE_PATH": str(tmp_path / "quotes.db"), "CATALOGUE": "empty"}
    else:
        variables = {"DATABASE_URL": request.getfixturevalue("database_url")}
    if "redis" in request.param:
        variables["REDIS_URL"] = request.getfixturevalue("redis").url
    list_instruments(
        tmp_path, variables, "META,Metaverse,ETF,50,", "FB,Facebook,STOCK,400,", "VOO,Fund,ETF,9,"
    )
    return variables | {"PRICE_UPDATE_INTERVAL": "50ms", "PRICE_WRITE_INTERVAL": "100ms"}


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
