"""Instruments are imported, renamed and delisted beside running servers. Subscribers see it."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.cli.command import complaint, run
from tests.gateway.wire import Client
from tests.processes import ServerProcess, eventually, make_token
from tests.store.served import knows, write

SOON = 10.0
"""Seconds for a change to be noticed: servers look every two, and the machine may be busy."""

NAMES = ("AAPL", "MSFT")


@pytest.fixture
def variables(shared: dict[str, str], tmp_path) -> dict[str, str]:
    """A store with two instruments that several servers share."""
    list_instruments(tmp_path, shared, "AAPL,Old,STOCK,100,", "MSFT,Microsoft,STOCK,50,")
    return shared | {"PRICE_UPDATE_INTERVAL": "500ms"}


def list_instruments(folder: Path, variables: dict[str, str], *rows: str) -> None:
    done = run(folder, "import", write(folder, *rows), **variables)
    assert done.returncode == 0, done.stderr


@contextmanager
def two_servers(folder: Path, variables: dict[str, str]) -> Iterator[list[ServerProcess]]:
    with ExitStack() as stack:
        servers = []
        for name in ("one", "two"):
            (folder / name).mkdir()
            servers.append(stack.enter_context(ServerProcess(folder / name, **variables)))
        yield servers
        for server in servers:
            assert not [line for line in server.log_lines() if line["level"] == "error"]


def watch(server: ServerProcess, symbols: str) -> Client:
    return Client(server, symbols, token=make_token("watcher"))


def reads(client: Client, symbol: str, name: str | None) -> None:
    """Read until the client has the symbol with this name, or without a name does not have it."""
    deadline = time.monotonic() + SOON
    while client.quotes.get(symbol, {"name": None})["name"] != name:
        assert time.monotonic() < deadline, "it never came"
        client.receive()


def moved(client: Client, symbol: str, version: int) -> int:
    """Read until the symbol has a higher version than `version`, and return it."""
    deadline = time.monotonic() + SOON
    while client.versions[symbol] <= version:
        assert time.monotonic() < deadline, "it does not move"
        client.receive()
    return client.versions[symbol]


def test_who_was_away_during_a_rename_gets_it(tmp_path, variables):
    """A resuming client gets the new name, even if no price moved meanwhile."""
    variables["PRICE_UPDATE_INTERVAL"] = "1h"
    with ServerProcess(tmp_path, **variables) as server:
        with watch(server, "AAPL,MSFT") as client:
            epoch = client.receive()["epoch"]
            held = ",".join(f"{each}={version}" for each, version in client.versions.items())
        list_instruments(tmp_path, variables, "AAPL,New,STOCK,100,", "MSFT,Microsoft,STOCK,50,")
        with watch(server, "AAPL") as other:
            reads(other, "AAPL", "New")
        with watch(server, f"AAPL,MSFT&resume={epoch}:{held}") as client:
            assert client.receive()["recovered"] == {"AAPL": "quote", "MSFT": "current"}
            reads(client, "AAPL", "New")


def test_watchers_see_what_is_imported_and_delisted(tmp_path, variables):
    """Subscribers on every server get a new name in full, new symbols with `*`, and removals.

    Prices continue. A delisted symbol is unknown until it is listed again.
    """
    with (
        two_servers(tmp_path, variables) as servers,
        watch(servers[0], "AAPL,MSFT") as one,
        watch(servers[1], "AAPL,MSFT") as two,
        watch(servers[1], "*") as everything,
    ):
        clients = [one, two, everything]
        for client in clients:
            reads(client, "MSFT", "Microsoft")
        list_instruments(tmp_path, variables, "AAPL,New,STOCK,90,", "NEW,Newcomer,ETF,10,")
        for client in clients:
            reads(client, "AAPL", "New")
            assert client.quotes["AAPL"]["base_price"] == 90
        reads(everything, "NEW", "Newcomer")
        for server in servers:
            eventually(partial(knows, server, {"AAPL": "New", "NEW": "Newcomer"}), SOON)

        version = moved(everything, "AAPL", 2)
        done = run(tmp_path, "delist", "aapl", "NEW", **variables)
        assert done.stdout == "2 instruments delisted\n", done.stderr
        for client in clients:
            reads(client, "AAPL", None)
            reads(client, "NEW", None)
            assert client.ask("resync", symbols=["AAPL"])["code"] == "not_subscribed"
            moved(client, "MSFT", client.versions["MSFT"])
        for server in servers:
            _, body = server.ask("/market-data?symbols=AAPL,MSFT,NEW")
            assert [each["symbol"] for each in body] == ["MSFT"]
            assert server.ask("/instruments/AAPL")[0] == 404
            assert server.ask("/instruments?query=aapl")[1] == []
        assert one.ask("subscribe", symbols=["AAPL"])["code"] == "unknown_symbol"
        assert one.ask("unsubscribe", symbols=["*"])["symbols"] == ["*"]
        reads(one, "MSFT", None)

        (tmp_path / "three").mkdir()
        with ServerProcess(tmp_path / "three", **variables) as late, watch(late, "*") as client:
            reads(client, "MSFT", "Microsoft")
            assert not {"AAPL", "NEW"} & set(client.quotes)
            assert late.ask("/instruments/AAPL")[0] == 404

        list_instruments(tmp_path, variables, "AAPL,Again,STOCK,90,")
        reads(everything, "AAPL", "Again")
        assert everything.versions["AAPL"] >= version


def test_delisted_stays_so_after_a_restart(tmp_path, variables):
    """Neither a continuing replay nor quotes of other instances list it again."""
    with ServerProcess(tmp_path, **variables) as server, watch(server, "AAPL,MSFT") as client:
        client.receive()
        moved(client, "AAPL", 1)
        assert server.stop() == 0
    assert run(tmp_path, "delist", "AAPL", **variables).returncode == 0
    rows = [f"{1_764_012_345_000 + 50 * n},{s},{100 + n},1" for n in range(999) for s in NAMES]
    day = tmp_path / "day.csv"
    day.write_text("\n".join(["timestamp_ms,symbol,price,size", *rows]))
    variables["FEED"] = f"replay:{day}"
    with ServerProcess(tmp_path, **variables) as server, watch(server, "MSFT") as client:
        client.receive()
        version = moved(client, "MSFT", client.versions["MSFT"])
        eventually(lambda: server.ask("/instruments/AAPL")[0] == 404, SOON)
        moved(client, "MSFT", version + 5)
        assert server.ask("/instruments/AAPL")[0] == 404


def test_change_by_another_service_is_seen(tmp_path, database_url, shared_postgres, database):
    """Another service's SQL statement renames or adds a row."""
    variables = {"DATABASE_URL": database_url}
    list_instruments(tmp_path, variables, "AAPL,Old,STOCK,100,")
    with ServerProcess(tmp_path, **variables) as server, watch(server, "*") as client:
        client.receive()
        shared_postgres.sql(
            "UPDATE market_data SET name = 'New'; INSERT INTO market_data "
            "(symbol, name, category, last_quote) VALUES ('VOO', 'Fund', 2, 400)",
            database,
        )
        reads(client, "VOO", "Fund")
        reads(client, "AAPL", "New")


def test_a_name_that_is_not_listed_is_named_and_nothing_done(tmp_path, variables):
    """Nothing is delisted if one symbol is not listed, also at a second try."""
    line = complaint(tmp_path, "delist", "AAPL", "nope", **variables)
    assert line == "quotestream: not listed: NOPE; nothing was changed"
    assert run(tmp_path, "delist", "AAPL", **variables).stdout == "1 instrument delisted\n"
    assert "not listed: AAPL" in complaint(tmp_path, "delist", "AAPL", **variables)
