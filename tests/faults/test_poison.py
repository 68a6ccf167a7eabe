"""Values that no instance wrote end no server, and all other symbols go on."""

import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from redis import Redis

from server.store.embedded import load_instruments
from tests.cli.command import run
from tests.faults.cluster import Cluster, Watcher
from tests.faults.poison import (
    EPOCH,
    HASH,
    LEADER,
    VICTIMS,
    WATCHED,
    Poison,
    Stores,
    poisons,
    snapshots,
)
from tests.gateway.wire import Client
from tests.processes import ServerProcess, eventually

EXAMPLES = int(os.environ.get("POISON_EXAMPLES", "15"))
"""Courses of some poisons each, of half a second. A long run takes thousands."""

NEAR = 2**63 - 1

BAD_FIELDS: list[dict[str, Any]] = [
    {"volume": NEAR}, {"version": NEAR}, {"version": 0}, {"quoted_at": 10**18},
    {"price_decimals": 32767}, {"market_cap": NEAR}, {"ts": NEAR}, {"last_quote": "much"},
    {"symbol": "MSFT"}, {"name": "a\0b"},
]  # a table # fmt: skip

BAD_COLUMNS = [
    f"volume = {NEAR}", f"version = {NEAR}", "quoted_at = 253402300800000000", "price_decimals = 32767",
    "price_decimals = -1", f"market_cap = {NEAR}", "last_quote = 'NaN'", "base_price = 1e400",
    "category = -1", "symbol = 'lower'",
]  # a table # fmt: skip

SPOILT = ["A", "ABT", "ACN", "ADBE", "AMD", "AMGN", "AXP", "BA", "BAC", "BLK"]
"""Some symbols of the shipped list, each with one of the bad values."""


@pytest.fixture(scope="module")
def shipped(shared_postgres, tmp_path_factory) -> Iterator[str]:
    """The name of a database with the shipped instruments; each test gets a copy."""
    shared_postgres.sql("CREATE DATABASE shipped")
    url = shared_postgres.url("shipped")
    assert run(tmp_path_factory.mktemp("import"), "import", DATABASE_URL=url).returncode == 0
    yield "shipped"
    shared_postgres.sql("DROP DATABASE shipped WITH (FORCE)")


@pytest.fixture
def stores(redis, shared_postgres, shipped) -> Iterator[Stores]:
    """A Redis, and a database with the shipped instruments."""
    shared_postgres.sql(f"CREATE DATABASE poisoned TEMPLATE {shipped}")
    with closing(Redis(port=redis.port)) as client:
        yield Stores(client, shared_postgres, "poisoned", [])
    shared_postgres.sql("DROP DATABASE poisoned WITH (FORCE)")


@contextmanager
def pair(
    stores: Stores, redis, folder, **variables: str
) -> Iterator[tuple[Cluster, list[Watcher]]]:
    """Start two instances over the stores, each with a client that checks it."""
    folder.mkdir()
    variables |= {
        "DATABASE_URL": stores.postgres.url(stores.database),
        "PRICE_WRITE_INTERVAL": "300ms",
    }
    with Cluster(folder, redis.url, **variables) as cluster:
        stores.servers = [cluster.start(), cluster.start()]
        watchers = [cluster.watch(server) for server in stores.servers]
        cluster.moves_on(watchers)
        yield cluster, watchers
        assert_alive(cluster.servers)


def assert_alive(servers: list[ServerProcess]) -> None:
    for server in servers:
        assert server.process.poll() is None, server.log.read_text()[-3000:]
        assert server.get("/healthz")[0] == 200
        assert not [line for line in server.log_lines() if line["level"] in ("error", "critical")]


def ask_of(server: ServerProcess, symbols: list[str]) -> set[str]:
    """Return the symbols that the server has. It may not know them now, but it may not fail."""
    status, found = server.ask(f"/market-data?symbols={','.join(symbols)}")
    assert status in (200, 503)
    assert server.ask("/instruments?query=ab")[0] in (200, 503)
    return {each["symbol"] for each in found} if status == 200 else set()


def saved(stores: Stores, symbol: str) -> int:
    """Return the version that the database has."""
    sql = f"SELECT version FROM market_data WHERE symbol = '{symbol}'"
    return int(stores.postgres.sql(sql, stores.database) or 0)


def invalid(server: ServerProcess) -> list[dict[str, Any]]:
    """Return the log's lines about invalid records."""
    return [line for line in server.log_lines() if line["event"].startswith("invalid")]


def named(server: ServerProcess) -> list[str]:
    """Return the keys of the invalid records that the log names."""
    return [line["key"] for line in invalid(server)]


def writes_on(stores: Stores, symbol: str = "AAPL") -> None:
    """Wait until the database has a newer version."""
    before = saved(stores, symbol)
    eventually(lambda: saved(stores, symbol) > before)


def test_poisoned_hash(tmp_path, redis, stores):
    """Instances that meet bad fields while they run, or start on them, serve all other symbols."""
    with pair(stores, redis, tmp_path / "before") as (cluster, watchers):
        for symbol, spoilt in zip(SPOILT, BAD_FIELDS, strict=True):
            stores.redis.hset(HASH, symbol, json.dumps(snapshots(symbol) | spoilt))
        for field in ("AES", b"\xff", "lower"):
            stores.redis.hset(HASH, field, b'{"symbol":"\xff"}')
        stores.redis.hset(HASH, "AFL", '{"x":' + "[" * 15_000)
        started = cluster.start()
        watchers.append(cluster.watch(started))
        cluster.moves_on(watchers)
        assert started.metric('market_data_invalid_records_total{source="hash"}') >= len(SPOILT) + 4
        eventually(lambda: {*SPOILT, "AES", "AFL"} <= {*named(started)})
        assert sorted(named(started)) == sorted({*named(started)}), "each is named once"
        # The catalogue's row takes the place of a value that is not a snapshot.
        assert ask_of(started, SPOILT) == {*SPOILT}
        with Client(started, ",".join([*SPOILT, "AES", "AFL"])) as client:
            client.receive()
            assert len(client.versions) == 12
    stores.redis.hset(HASH, "meta", json.dumps({"epoch": 2**62, "seq": 2**62}))
    for symbol, spoilt in zip(SPOILT, BAD_FIELDS, strict=True):
        stores.redis.hset(HASH, symbol, json.dumps(snapshots(symbol) | spoilt))
    with pair(stores, redis, tmp_path / "after"):
        writes_on(stores)


def test_number_of_a_batch_that_will_not_come(tmp_path, redis):
    """A follower that hears a false batch ignores the leader's true ones for a moment only."""
    with Cluster(tmp_path, redis.url, BUS_LEASE="30s") as cluster:
        leader = cluster.start()
        cluster.moves_on([cluster.watch(leader)])
        leader.process.send_signal(signal.SIGSTOP)
        mark = json.loads(redis.command("HGET", HASH, "meta"))
        redis.command("HSET", HASH, "meta", json.dumps(mark | {"seq": 2**53 - 1}))
        follower = cluster.start()
        watcher = cluster.watch(follower)
        leader.process.send_signal(signal.SIGCONT)
        cluster.moves_on([watcher])
        assert follower.metric("market_data_bus_gaps_total") >= 1
        assert_alive(cluster.servers)


def test_poisoned_rows(tmp_path, redis, stores):
    """Instances that meet bad rows serve all other symbols and write their prices."""
    with (
        pair(stores, redis, tmp_path / "before") as (cluster, watchers),
        Client(stores.servers[0], ",".join(SPOILT)) as client,  # they are live, and move
    ):
        client.receive()
        _spoil_rows(stores)
        cluster.moves_on(watchers)
        writes_on(stores)
        writes_on(stores, "ABT")  # a version that nobody can be above is written over
    stores.redis.flushall()
    _spoil_rows(stores)
    with pair(stores, redis, tmp_path / "after") as (cluster, watchers):
        assert ask_of(stores.servers[0], [*SPOILT, "MMM"]) == {"MMM"}
        with Client(stores.servers[0], "*") as client:
            while len(client.versions) < 503:
                client.receive()
            assert not client.versions.keys() & {*SPOILT, "lower", "LOWER"}
        cluster.moves_on(watchers)
        writes_on(stores)


def _spoil_rows(stores: Stores) -> None:
    stores.postgres.sql("DELETE FROM market_data WHERE symbol = 'lower'", stores.database)
    for symbol, spoilt in zip(SPOILT, BAD_COLUMNS, strict=True):
        sql = f"UPDATE market_data SET {spoilt} WHERE symbol = '{symbol}'"
        stores.postgres.sql(sql, stores.database)


def test_row_that_the_database_refuses_holds_nobody_up(tmp_path, stores):
    """Another service's trigger refuses the prices of two symbols. The others are written, each
    refusal is named once, and a write does not try those rows again.
    """
    refuse = (
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "PERFORM pg_catalog.nextval('tries'); RAISE 'not this one'; END $$; CREATE SEQUENCE tries; "
        "CREATE TRIGGER refuse BEFORE UPDATE ON market_data FOR EACH ROW "
        "WHEN (NEW.symbol IN ('IBM', 'MMM')) EXECUTE FUNCTION refuse()"
    )
    stores.postgres.sql(refuse, stores.database)
    symbols = ["AAPL", "AMD", "BA", "IBM", "MMM", "MSFT", "TSLA"]
    url = stores.postgres.url(stores.database)
    variables = {"PRICE_UPDATE_INTERVAL": "100ms", "PRICE_WRITE_INTERVAL": "200ms"}
    with (
        ServerProcess(tmp_path, DATABASE_URL=url, **variables) as server,
        Client(server, ",".join(symbols)),
    ):
        for symbol in {*symbols} - {"IBM", "MMM"}:
            eventually(partial(lambda it: saved(stores, it) > 1, symbol))

        def tried() -> int:
            return int(stores.postgres.sql("SELECT last_value FROM tries", stores.database))

        eventually(
            lambda: server.metric('market_data_invalid_records_total{source="write_back"}') == 2
        )
        tries = tried()
        for _ in range(3):
            writes_on(stores)
        assert tried() == tries
        eventually(lambda: len(invalid(server)) >= 2)
        lines = invalid(server)
        assert sorted(line["key"] for line in lines) == ["IBM", "MMM"]
        assert all("not this one" in line["problem"] for line in lines)
        breaker = 'market_data_store_breaker{component="write_back",state="closed"}'
        assert server.metric(breaker) == 1


def test_numbers_at_the_bound(tmp_path, redis, stores):
    """A volume that cannot grow stays. A quote without a further version stands still and is called
    quiet. The follower hears the leader's batches all the time.
    """
    largest = 2**53 - 1
    # With the catalogue's own data: an instance shows others until it has looked there.
    listed = {each.symbol: each for each in load_instruments()}
    for symbol, edge in (("IBM", {"version": largest - 1}), ("MMM", {"volume": largest - 1})):
        known = {
            name: getattr(listed[symbol], name) for name in ("name", "base_price", "market_cap")
        }
        stores.redis.hset(HASH, symbol, json.dumps(snapshots(symbol) | known | edge))
    with pair(stores, redis, tmp_path / "pair", QUOTE_QUIET_AFTER="1s") as (cluster, watchers):
        watchers += [cluster.watch(server, "IBM,MMM") for server in stores.servers]

        def at_the_bound(watcher: Watcher) -> bool:
            quotes = watcher.document["quotes"]
            return watcher.held["IBM"][1] == largest and quotes["MMM"]["volume"] == largest

        for watcher in watchers[2:]:
            watcher.wait_for(at_the_bound)
        cluster.moves_on(watchers)
        dropped = "market_data_invalid_records_total"
        assert not any(each.metric(f'{dropped}{{source="bus"}}') for each in stores.servers)
        eventually(
            lambda: any(each.metric(f'{dropped}{{source="versions"}}') for each in stores.servers)
        )
        eventually(lambda: saved(stores, "IBM") == largest)


def test_file_with_values_of_every_type(tmp_path):
    """A server serves what is left of its spoilt SQLite file, and so does one that starts on it."""
    variables = {"PRICE_UPDATE_INTERVAL": "100ms", "PRICE_WRITE_INTERVAL": "200ms"}
    file = tmp_path / "quotes.db"
    spoilt = {
        "A": "volume = 'x'", "ABT": "name = CAST(x'ff' AS TEXT)", "ACN": "last_quote = 9e999",
        "AMD": "version = x'00'", "AXP": f"volume = {NEAR}", "BA": "symbol = x'ff'",
        "BAC": "quoted_at = 1.5", "BLK": "made_up_price = 'x'", "ADBE": "changed_in = 'x'",
    }  # a table # fmt: skip
    for _ in range(2):
        with (
            ServerProcess(tmp_path, SQLITE_PATH=str(file), **variables) as server,
            Client(server, "*") as client,
        ):
            while len(client.versions) < 500:
                client.receive()
            with closing(sqlite3.connect(file, timeout=10)) as other, other:
                for symbol, change in spoilt.items():
                    other.execute(
                        f"UPDATE OR IGNORE market_data SET {change} WHERE symbol = '{symbol}'"
                    )
            before = server.metric("market_data_prices_saved_total")
            eventually(lambda: server.metric("market_data_prices_saved_total") > before)  # noqa: B023 (called here)
            assert client.is_answered()
            assert_alive([server])
    # Last prices were written over, as the symbols moved; reference data are for an operator to mend.
    assert not client.versions.keys() & {"ABT", "BLK"}


@pytest.mark.filterwarnings("ignore:Do not use the `random` module")  # the clients' threads do
def test_anything_anywhere(tmp_path, redis, stores):
    """Arbitrary values come into each key, message and column of a running pair. Both answer, and
    the clients of each go on with versions that agree.
    """
    with pair(stores, redis, tmp_path / "pair", BUS_LEASE="1s") as (cluster, watchers):

        @given(st.lists(poisons, min_size=1, max_size=10))
        @settings(
            max_examples=EXAMPLES,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
            database=None,
        )
        def story(drawn: list[Poison]) -> None:
            for _, act in drawn:
                act(stores)
            cluster.moves_on(watchers)
            for server in stores.servers:
                ask_of(server, VICTIMS)
            assert_alive(stores.servers)

        story()
        for key in (HASH, EPOCH, LEADER, WATCHED):  # as after the worst of them
            # In one step: an instance may write the key anew between two.
            stores.redis.eval("redis.call('DEL', KEYS[1]) redis.call('RPUSH', KEYS[1], 1)", 1, key)
        cluster.converge(cluster.wait_for_leader(stores.servers), watchers)
        writes_on(stores)
