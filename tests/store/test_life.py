"""Symbols are renamed, split and used anew beside running servers. Subscribers see it."""

import signal
import sqlite3
import time
from contextlib import closing
from typing import Any

import pytest

from tests.cli.command import complaint, run
from tests.gateway.wire import Client
from tests.processes import ServerProcess, eventually
from tests.publisher import post
from tests.store.served import write
from tests.store.test_listing import SOON, list_instruments, moved, reads, two_servers, watch

FAST = {"PRICE_UPDATE_INTERVAL": "50ms", "PRICE_WRITE_INTERVAL": "100ms"}


@pytest.fixture
def variables(shared: dict[str, str], tmp_path) -> dict[str, str]:
    """A store with three instruments that several servers share."""
    list_instruments(
        tmp_path, shared, "FB,Facebook,STOCK,400,", "MSFT,Microsoft,STOCK,50,", "VOO,Fund,ETF,9,"
    )
    return shared | FAST


def done(folder, variables, *arguments: str) -> str:
    """Run a command that succeeds, and return what it prints."""
    finished = run(folder, *arguments, **variables)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def until(client: Client, symbol: str, holds) -> dict[str, Any]:
    """Read until the client's quote is as wanted, and return the message that made it so."""
    message: dict[str, Any] = {}
    deadline = time.monotonic() + 2 * SOON
    while symbol not in client.quotes or not holds(client.quotes[symbol]):
        assert time.monotonic() < deadline, "it never came"
        message = client.receive()
    return message


def test_rename_moves_subscribers_with_price_and_version(tmp_path, variables):
    """On each server, subscribers lose the old symbol and get the new one in one message, and prices go
    on. Subscribers to `*` see both. The old symbol is unknown, the new one is known in its place.
    """
    with (
        two_servers(tmp_path, variables) as servers,
        watch(servers[0], "FB,MSFT") as one,
        watch(servers[1], "FB") as two,
        watch(servers[1], "*") as everything,
        watch(servers[0], "MSFT") as other,
    ):
        clients = [one, two, everything]
        for client in [*clients, other]:
            reads(client, "FB", "Facebook") if client is not other else client.receive()
        for client in clients:
            moved(client, "FB", 3)
        volume = one.quotes["FB"]["volume"]
        assert done(tmp_path, variables, "rename", "fb", "meta") == "FB is META now\n"
        for client in clients:
            message: dict[str, Any] = {}
            while "META" not in client.quotes:
                before, message = client.versions["FB"], client.receive()
            assert [each["op"] for each in message["operations"]] == ["remove", "add"]
            assert message["renamed"] == {"FB": "META"}
            assert message["versions"]["META"] > before
            quote = client.quotes["META"]
            assert "FB" not in client.quotes
            assert (quote["symbol"], quote["name"], quote["base_price"]) == (
                "META",
                "Facebook",
                400,
            )
            assert quote["volume"] > 0
            moved(client, "META", message["versions"]["META"] + 2)
        assert one.quotes["META"]["volume"] > volume
        assert one.ask("resync", symbols=["FB"])["code"] == "not_subscribed"
        assert one.ask("resync", symbols=["META"])["action"] == "resync"
        assert one.ask("subscribe", symbols=["FB"])["code"] == "unknown_symbol"
        for server in servers:
            assert server.ask("/instruments/FB")[0] == 404
            _, body = server.ask("/quotes?symbols=FB,META")
            assert [each["quote"]["symbol"] for each in body] == ["META"]
            assert [each["symbol"] for each in server.ask("/instruments?query=facebook")[1]] == [
                "META"
            ]
        other.ask("ping")
        assert set(other.quotes) == {"MSFT"}
    versions = max(client.versions["META"] for client in clients)
    with ServerProcess(tmp_path, **variables) as server, watch(server, "META") as client:
        reads(client, "META", "Facebook")
        assert client.versions["META"] >= versions - 1
        assert client.quotes["META"]["volume"] > 0


def test_renamed_and_back_again(tmp_path, variables):
    """A symbol may return to its instrument. The version never goes back, so no proof breaks."""
    with ServerProcess(tmp_path, **variables) as server, watch(server, "FB") as client:
        reads(client, "FB", "Facebook")
        first = moved(client, "FB", 3)
        done(tmp_path, variables, "rename", "FB", "META")
        reads(client, "META", "Facebook")
        second = client.versions["META"]
        done(tmp_path, variables, "rename", "META", "FB")
        reads(client, "FB", "Facebook")
        assert first < second < client.versions["FB"]
        assert set(client.quotes) == {"FB"}
        moved(client, "FB", client.versions["FB"])
        assert server.ask("/instruments/META")[0] == 404


@pytest.mark.parametrize(
    ("ratio", "price", "factor"), [("4:1", 100, 4), ("1:10", 4000, 0.1), ("3:2", 266.67, 1.5)]
)
def test_split_holds_against_a_leader_that_moves(tmp_path, variables, ratio, price, factor):
    """Every price after the split is near the new base price, on each server, in the database, after
    a takeover and a restart.
    """
    with (
        two_servers(tmp_path, variables) as servers,
        watch(servers[0], "FB") as one,
        watch(servers[1], "FB,MSFT") as two,
    ):
        for client in (one, two):
            reads(client, "FB", "Facebook")
            moved(client, "FB", 10)
        volume, version = one.quotes["FB"]["volume"], one.versions["FB"]
        told = done(tmp_path, variables, "split", "fb", ratio)
        assert f"FB split {ratio}: its base price is {price:.2f} now" in told
        for client in (one, two):
            message = until(client, "FB", lambda quote: quote["base_price"] == price)
            assert [each["op"] for each in message["operations"]] == ["add"]
            near(client, price)
        assert one.versions["FB"] > version
        assert one.quotes["FB"]["volume"] > volume * factor * 0.9
        for server in servers:
            [row] = server.ask("/market-data?symbols=FB")[1]
            assert row["last_quote"] == pytest.approx(price, rel=0.011)
        assert "already" in complaint(tmp_path, "split", "FB", ratio, **variables)
        if "REDIS_URL" in variables:
            leader = next(each for each in servers if each.metric("market_data_leader"))
            leader.stop(signal.SIGKILL)
            near(two if leader is servers[0] else one, price)
    with ServerProcess(tmp_path, **variables) as server, watch(server, "FB") as client:
        reads(client, "FB", "Facebook")
        assert client.quotes["FB"]["base_price"] == price
        near(client, price)


def near(client: Client, price: float) -> None:
    """Check the next prices: the simulator moves them by up to one percent of the base price."""
    for _ in range(20):
        moved(client, "FB", client.versions["FB"])
        assert client.quotes["FB"]["current_price"] == pytest.approx(price, rel=0.011)


def test_fresh_import_forgets_the_last_price(tmp_path, variables):
    """The quote begins at the imported price with no volume, in a version that goes on."""
    variables["PRICE_UPDATE_INTERVAL"] = "500ms"
    with ServerProcess(tmp_path, **variables) as server, watch(server, "FB") as client:
        reads(client, "FB", "Facebook")
        version = moved(client, "FB", 2)
        file = write(tmp_path, "FB,Fortune,STOCK,10,")
        assert done(tmp_path, variables, "import", "--fresh", file) == "1 instrument listed\n"
        message = until(client, "FB", lambda quote: quote["name"] == "Fortune")
        [operation] = message["operations"]
        assert operation["op"] == "add"
        assert client.quotes["FB"]["base_price"] == 10
        assert client.quotes["FB"]["current_price"] == pytest.approx(10, rel=0.011)
        assert client.quotes["FB"]["volume"] < 2001
        assert client.versions["FB"] > version
        moved(client, "FB", client.versions["FB"])


def test_publisher_may_go_on_with_the_old_symbol(tmp_path):
    """Its trades count for the new one, also after a restart."""
    variables = {"SQLITE_PATH": str(tmp_path / "quotes.db"), "CATALOGUE": "empty", "FEED": "push"}
    list_instruments(tmp_path, variables, "FB,Facebook,STOCK,400,")
    trade = {"symbol": "FB", "size": 1, "price": 401, "id": "a"}
    with ServerProcess(tmp_path, **variables) as server, watch(server, "FB") as client:
        reads(client, "FB", "Facebook")
        done(tmp_path, variables, "rename", "FB", "META")
        reads(client, "META", "Facebook")
        assert post(server, trade).body["accepted"] == 1
        until(client, "META", lambda quote: quote["current_price"] == 401)
        assert post(server, trade | {"symbol": "META"}).body["duplicate"] == 1
    with ServerProcess(tmp_path, **variables) as server, watch(server, "META") as client:
        assert post(server, trade | {"price": 402, "id": "b"}).body["accepted"] == 1
        until(client, "META", lambda quote: quote["current_price"] == 402)


@pytest.mark.parametrize("interval", ["1h", "50ms"])
def test_fresh_import_without_a_price_shows_none(tmp_path, variables, interval):
    """The company before took its price with it, also if no feed had moved it."""
    variables |= {"PRICE_UPDATE_INTERVAL": interval, "FEED": "simulator"}
    with ServerProcess(tmp_path, **variables) as server, watch(server, "FB") as client:
        reads(client, "FB", "Facebook")
        version = moved(client, "FB", 2) if interval == "50ms" else client.versions["FB"]
        done(tmp_path, variables, "import", "--fresh", write(tmp_path, "FB,Fortune,STOCK,,"))
        until(client, "FB", lambda quote: quote["name"] == "Fortune")
        assert client.quotes["FB"]["current_price"] is None
        assert client.quotes["FB"]["base_price"] is None
        assert client.versions["FB"] > version
        [entry] = server.ask("/quotes?symbols=FB")[1]
        assert entry["quote"]["current_price"] is None
    with ServerProcess(tmp_path, **variables) as server:

        def is_fresh() -> bool:
            [entry] = server.ask("/quotes?symbols=FB")[1]
            shown = entry["quote"]["name"], entry["quote"]["current_price"]
            return shown == ("Fortune", None) and entry["version"] > 1

        # The killed server may have told its clients and not Redis yet. Then the next look mends it.
        eventually(is_fresh, SOON)


def test_old_symbol_may_be_listed_for_another_instrument(tmp_path, variables):
    """After a rename an import lists the old symbol again, without the old price."""
    with ServerProcess(tmp_path, **variables) as server, watch(server, "FB") as client:
        reads(client, "FB", "Facebook")
        version = moved(client, "FB", 3)
        done(tmp_path, variables, "rename", "FB", "META")
        reads(client, "META", "Facebook")
        done(tmp_path, variables, "import", write(tmp_path, "FB,Fortune,STOCK,10,"))
        with watch(server, "*") as everything:
            reads(everything, "FB", "Fortune")
        with watch(server, "FB,META") as both:
            reads(both, "FB", "Fortune")
            assert both.quotes["FB"]["current_price"] == pytest.approx(10, rel=0.011)
            assert both.versions["FB"] > version
            assert both.quotes["META"]["base_price"] == 400
        assert "FB" not in client.quotes


def test_refusals_change_nothing(tmp_path):
    """Each mistake is one line, and nothing is changed."""
    variables = {"CATALOGUE": "empty"}
    list_instruments(
        tmp_path, variables, "FB,Facebook,STOCK,0.02,", "MSFT,Microsoft,STOCK,500000000,"
    )
    before = done(tmp_path, variables, "list")
    for arguments, problem in [
        (("rename", "NOPE", "META"), "NOPE is not listed; nothing was changed"),
        (("rename", "FB", "msft"), "MSFT is listed already: delist it first"),
        (("rename", "FB", "fb"), "FB has this symbol already; nothing was renamed"),
        (("rename", "FB", "A,B"), "not a symbol"),
        (("rename", "FB", "*"), "not a symbol"),
        (("split", "NOPE", "2:1"), "NOPE is not listed; nothing was changed"),
        (("split", "FB", "4"), "'4' is not a ratio such as 4:1"),
        (("split", "FB", "4:0"), "is not a ratio"),
        (("split", "FB", "4.5:1"), "is not a ratio"),
        (("split", "FB", "3:3"), "a split of 3:3 changes nothing"),
        (("split", "MSFT", "1:1000000"), "out of bounds"),
    ]:
        assert problem in complaint(tmp_path, *arguments, **variables)
    assert done(tmp_path, variables, "list") == before
    assert "0.00500 now" in done(tmp_path, variables, "split", "FB", "4:1")
    assert done(tmp_path, variables, "split", "FB", "8:2", "--again")
    with closing(sqlite3.connect(tmp_path / "quotestream" / "quotes.db")) as file:
        query = "SELECT base_price, last_quote, adjustments FROM market_data WHERE symbol = 'FB'"
        assert file.execute(query).fetchone() == (0.00125, 0.00125, "4:1 4:1")
