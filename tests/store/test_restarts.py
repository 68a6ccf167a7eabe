"""Prices after a restart, and servers that share a file or wait for a database."""

import signal
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial

import pytest

from tests.cli.command import run
from tests.gateway.wire import Client
from tests.processes import ServerProcess, eventually
from tests.stopwatch import Stopwatch
from tests.store.served import has_saved, names


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_restart_goes_on_from_the_last_price(request, tmp_path, kind):
    """After a restart, clients see the same price, version and volume as before."""
    variables = {"PRICE_UPDATE_INTERVAL": "50ms"}
    if kind == "postgres":
        variables["DATABASE_URL"] = request.getfixturevalue("database_url")
        assert run(tmp_path, "import", **variables).returncode == 0
    with ServerProcess(tmp_path, **variables) as server:
        with Client(server, "AAPL") as client:
            client.receive()
            for _ in range(5):
                client.move()
        assert server.stop() == 0
    quote, version = client.quotes["AAPL"], client.versions["AAPL"]
    variables["PRICE_UPDATE_INTERVAL"] = "1h"
    with ServerProcess(tmp_path, **variables) as server, Client(server, "AAPL") as client:
        client.receive()
        assert client.versions["AAPL"] >= version
        if client.versions["AAPL"] == version:
            assert client.quotes["AAPL"] == quote
        assert client.quotes["AAPL"]["base_price"] == quote["base_price"]
        assert client.quotes["AAPL"]["volume"] >= quote["volume"]


def test_prices_are_written_while_serving(tmp_path):
    """A killed server loses the last seconds only. A start loads the symbols watched last."""
    variables = {"PRICE_UPDATE_INTERVAL": "50ms", "PRICE_WRITE_INTERVAL": "200ms"}
    with ServerProcess(tmp_path, **variables) as server, Client(server, "AAPL") as client:
        client.receive()
        client.move()
        eventually(lambda: server.metric("market_data_prices_saved_total") > 0)
        server.stop(signal.SIGKILL)
    with ServerProcess(tmp_path, **variables) as server:
        server.await_event("cache warmed")
        _, [quote] = server.ask("/quotes?symbols=AAPL")
        assert quote["version"] > 1


def test_replayed_symbols_are_listed(tmp_path):
    """A replay lists symbols that the catalogue does not have. Listed ones keep their name."""
    day = tmp_path / "day.csv"
    day.write_text(
        "timestamp_ms,symbol,price,size\n1764012345678,ODD,1.2345,100\n1764012345679,AAPL,9,1\n"
    )
    with ServerProcess(tmp_path, FEED=f"replay:{day}") as server:
        eventually(lambda: server.metric("market_data_feed_updates_total") == 2)
        assert server.stop() == 0
    with ServerProcess(tmp_path) as server:
        _, body = server.ask("/market-data?symbols=ODD,AAPL")
        assert {each["symbol"]: each["last_quote"] for each in body} == {"ODD": 1.2345, "AAPL": 9}
        assert names(server, "AAPL")["AAPL"].startswith("Apple")


def test_last_prices_outlast_a_database_that_is_down(tmp_path, postgres):
    """Prices that could not be written are written when the database is back."""
    variables = {
        "DATABASE_URL": postgres.url(),
        "PRICE_UPDATE_INTERVAL": "50ms",
        "PRICE_WRITE_INTERVAL": "200ms",
    }
    assert run(tmp_path, "import", **variables).returncode == 0
    with ServerProcess(tmp_path, **variables) as server, Client(server, "AAPL") as client:
        client.receive()
        postgres.kill()
        for _ in range(20):
            client.move()
        version = client.versions["AAPL"]
        postgres.start()
        query = "SELECT version FROM market_data WHERE symbol = 'AAPL'"
        deadline = time.monotonic() + 10
        while int(postgres.sql(query)) < version:
            assert time.monotonic() < deadline
            client.move()


def test_two_servers_share_the_embedded_file(tmp_path):
    """Two servers start together on a new file. Both serve and write."""
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    variables = {
        "SQLITE_PATH": str(tmp_path / "quotes.db"),
        "PRICE_UPDATE_INTERVAL": "50ms",
        "PRICE_WRITE_INTERVAL": "100ms",
    }
    with ThreadPoolExecutor() as pool:
        servers = [ServerProcess(folder, **variables) for folder in folders]
        try:
            list(pool.map(ServerProcess.__enter__, servers))
            clients = [Client(server, "AAPL") for server in servers]
            for server, client in zip(servers, clients, strict=True):
                with client:
                    client.receive()
                    eventually(partial(has_saved, server))
                assert server.metric("market_data_db_errors_total") == 0
                assert server.stop() == 0
        finally:
            for server in servers:
                server.__exit__(None, None, None)


def test_file_that_another_process_writes_to_is_read(tmp_path):
    """Requests are answered at once meanwhile. Last prices are written afterwards."""
    variables = {"PRICE_UPDATE_INTERVAL": "50ms", "PRICE_WRITE_INTERVAL": "100ms"}
    with ServerProcess(tmp_path, **variables) as server, Client(server, "AAPL") as client:
        client.receive()
        eventually(partial(has_saved, server))
        with closing(sqlite3.connect(tmp_path / "quotestream" / "quotes.db")) as other:
            other.execute("BEGIN IMMEDIATE")
            saved = server.metric("market_data_prices_saved_total")
            for _ in range(10):  # half a second: the server waits for its turn to write
                client.move()
            watch = Stopwatch(server.process.pid)
            assert set(names(server, "MMM")) == {"MMM"}
            assert watch.seconds < 1
            assert server.metric("market_data_prices_saved_total") <= saved + 1  # one just before
        eventually(lambda: server.metric("market_data_prices_saved_total") > saved + 1)
