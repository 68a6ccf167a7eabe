"""One price on every way out, whatever another service writes into the table `market_data`."""

import json
from functools import partial
from typing import Any
from urllib.parse import quote as escape

import pytest

from tests.cli.command import run
from tests.gateway.wire import Client
from tests.processes import ServerProcess, eventually
from tests.store.shared_table import (
    SOON,
    Store,
    acknowledged,
    found,
    has,
    is_everywhere,
    price_of,
    quotes_of,
    reads,
    servers,
)


@pytest.fixture(params=["sqlite", "sqlite and redis", "postgres", "postgres and redis"])
def store(request, tmp_path) -> Store:
    """An empty catalogue with its tables."""
    postgres = request.getfixturevalue("shared_postgres") if "postgres" in request.param else None
    redis = request.getfixturevalue("redis") if "redis" in request.param else None
    store = Store(tmp_path, postgres, redis)
    store.use(request.getfixturevalue("database") if postgres else "")
    assert run(tmp_path, "migrate", **store.variables).returncode == 0
    return store


def is_changed(server: ServerProcess, symbol: str, percent: float) -> bool:
    """Return whether each way out has this change, and no time of a price."""
    quotes = [each or {} for each in quotes_of(server, symbol).values()]
    changes = [(each.get("change_percent"), each.get("last_updated", "")) for each in quotes]
    return set(changes) == {(percent, None)}


def test_price_that_another_service_writes_is_the_price_everywhere(tmp_path, store):
    """Also for clients that subscribed before, for symbols in memory and others, on every instance,
    and after a restart. What is set anew, such as a name, comes with it.
    """
    for symbol in ("HELD", "COLD", "TINY", "PLAIN"):
        store.insert(symbol)
    with servers(tmp_path, store) as (one, two):
        with Client(one, "HELD,TINY,PLAIN") as named, Client(two, "*") as everything:
            for client in (named, everything):
                reads(client, partial(has, client, "TINY", current_price=100, last_updated=None))
            for server in (one, two):
                assert price_of(found(server, "/market-data?symbols=COLD"), "COLD", "last_quote")
            store.sql(
                "UPDATE market_data SET last_quote = 111, name = 'New' "
                "WHERE symbol IN ('HELD', 'COLD')"
            )
            # Nothing but the price.
            store.sql("UPDATE market_data SET last_quote = 112 WHERE symbol = 'PLAIN'")
            store.sql("UPDATE market_data SET last_quote = 0.00001234 WHERE symbol = 'TINY'")
            wanted = {"current_price": 111, "base_price": 100, "change": 11, "name": "New"}
            for client in (named, everything):
                reads(client, partial(has, client, "HELD", **wanted, last_updated=None))
                reads(client, partial(has, client, "TINY", current_price=0.00001234))
                reads(client, partial(has, client, "PLAIN", current_price=112, base_price=100))
                assert client.versions == dict.fromkeys(client.versions, 1)
        for server in (one, two):
            for symbol in ("HELD", "COLD"):
                eventually(partial(is_everywhere, server, symbol, 111), SOON)
            eventually(partial(is_everywhere, server, "TINY", 0.00001234), SOON)
            eventually(partial(is_everywhere, server, "PLAIN", 112), SOON)
    store.sql("UPDATE market_data SET base_price = 50, last_quote = 99 WHERE symbol <> 'TINY'")
    with servers(tmp_path, store) as (one, two):
        for server in (one, two):
            assert is_everywhere(server, "TINY", 0.00001234)
            for symbol in ("COLD", "HELD"):
                eventually(partial(is_everywhere, server, symbol, 99), SOON)
            eventually(partial(is_changed, server, "HELD", 98), SOON)


def test_time_of_a_price_is_what_the_table_knows(tmp_path, store):
    """It is null, or `quoted_at`, on every way out and never the time of the request."""
    store.insert("NEVER")
    store.insert("TIMED", quoted_at=1_764_012_345_678_901, volume=7)
    with servers(tmp_path, store) as (one, two):
        for server in (one, two):
            for quote in quotes_of(server, "NEVER").values():
                assert quote
                assert (quote["last_updated"], quote["volume"]) == (None, 0)
            for quote in quotes_of(server, "TIMED").values():
                assert quote
                assert quote["last_updated"] == "2025-11-24T19:25:45.678901Z"
                assert quote["volume"] == 7


def test_price_of_a_feed_is_the_price_everywhere(tmp_path, store):
    """Once a feed has moved a symbol, another service's price is overwritten in the table, too."""
    store.insert("MOVED")
    trades = tmp_path / "trades.csv"
    trades.write_text("timestamp_ms,symbol,price,size\n1764012345000,MOVED,105.5,100\n")
    store.variables |= {"FEED": f"replay:{trades}", "PRICE_WRITE_INTERVAL": "500ms"}
    with servers(tmp_path, store, 1) as [server]:
        with Client(server, "MOVED") as client:
            reads(client, partial(has, client, "MOVED", current_price=105.5))
        eventually(lambda: server.metric("market_data_prices_saved_total") > 0, SOON)
        store.sql("UPDATE market_data SET last_quote = 111")
        assert is_everywhere(server, "MOVED", 105.5)
        eventually(lambda: server.metric("market_data_prices_saved_total") > 1, SOON)
        assert is_everywhere(server, "MOVED", 105.5)
    store.variables["FEED"] = "simulator"
    with servers(tmp_path, store) as (one, two):
        for server in (one, two):
            assert is_everywhere(server, "MOVED", 105.5)


BAD = {"lower": "lower", " PAD": " PAD", "PAD ": "PAD ", "A,B": "A,B", "aapl": "aapl", "*": "*"}
BAD_PRICES = {"NAN": "'NaN'", "INF": "'Infinity'", "BELOW": "-1"}


def test_each_symbol_has_one_spelling(tmp_path, store):
    """A row that cannot be asked for is not streamed either, and the log names it once. All that is
    streamed to `*` can be asked for on every way.
    """
    good = ["AAPL", "BTC/USD", "EURUSD=X", "^GSPC", "7203.T", "BRK B", "Ä~1", "%41"]
    for symbol in [*good, *BAD]:
        store.insert(symbol)
    for symbol, price in BAD_PRICES.items():
        store.insert(symbol)
        store.sql(f"UPDATE market_data SET last_quote = {price} WHERE symbol = '{symbol}'")
    with servers(tmp_path, store, 1) as [server], Client(server, "*") as client:
        reads(client, lambda: client.quotes.keys() >= set(good))
        client.is_answered()
        assert client.quotes.keys() == set(good)
        assert {each["symbol"] for each in found(server, "/instruments?limit=100")} == set(good)
        for symbol in good:
            assert is_everywhere(server, symbol, 100), symbol
        for symbol in [*BAD, *BAD_PRICES]:
            code = escape(symbol, safe="")
            normal = symbol.strip().upper()
            for path in ("market-data?symbols", "instruments?query"):
                listed = found(server, f"/{path}={code}")
                assert {each["symbol"] for each in listed} <= set(good)
            assert (server.ask(f"/instruments/{code}")[0] == 200) is (normal in good)
            if normal not in good and symbol != "*":
                with Client(server) as other:
                    answer = other.ask("subscribe", symbols=[symbol])
                    assert answer["code"] == "unknown_symbol", symbol
            assert len(server.events("invalid record left out", key=symbol)) <= 1
        for symbol in [*BAD, *BAD_PRICES]:
            server.await_event("invalid record left out", key=symbol)


def test_price_that_is_put_right_is_the_price(tmp_path, store):
    """NaN for a moment does not stay, also not in the base price of a row that waited."""
    store.insert("SICK")
    store.insert("WAITS", "0", base_price="NULL")
    with servers(tmp_path, store, 1) as [server]:
        for symbol in ("SICK", "WAITS"):
            assert found(server, f"/quotes?symbols={symbol}")
        infinite = "1e999" if "SQLITE_PATH" in store.variables else "'Infinity'"
        store.sql(f"UPDATE market_data SET last_quote = {infinite}")
        eventually(lambda: not found(server, "/market-data?symbols=SICK,WAITS"), SOON)
        store.sql("UPDATE market_data SET last_quote = 99")
        for symbol in ("SICK", "WAITS"):
            eventually(partial(is_everywhere, server, symbol, 99), SOON)
        [view] = found(server, "/quotes?symbols=WAITS")
        assert view["quote"]["base_price"] == 99


def test_instrument_without_a_price_waits_for_its_first(tmp_path, store):
    """It can be found and subscribed to, also with `*`. Its quote comes in full with the first price,
    which becomes the base price, also after a restart. A new import without a price does not erase it.
    """
    file = tmp_path / "own.csv"
    file.write_text("symbol,name,price\nNEW,Newcomer,\nLATER,Later,n/a\nOLD,Old,5.5\n")
    done = run(tmp_path, "import", str(file), **store.variables)
    assert done.stdout == "3 instruments listed, 2 without a price until the first trade\n", done
    listed = run(tmp_path, "list", **store.variables).stdout
    assert [line.split()[2] for line in listed.splitlines()] == ["-", "-", "5.50"]
    trades = tmp_path / "trades.csv"
    trades.write_text(
        "timestamp_ms,symbol,price,size\n1764012345000,OLD,5.6,100\n"
        "1764012348000,NEW,7.1234,100\n1764012349000,NEW,7.2,50\n"
    )
    with servers(tmp_path, store) as pair:
        for server in pair:
            [view] = found(server, "/quotes?symbols=NEW")
            quote = view["quote"]
            assert [quote[field] for field in ("symbol", "name", "volume")] == [
                "NEW",
                "Newcomer",
                0,
            ]
            prices = ("current_price", "base_price", "change", "change_percent", "last_updated")
            assert [quote[field] for field in prices] == [None] * 5
            for path in ("market-data?symbols=NEW", "instruments?query=newcomer"):
                [row] = found(server, f"/{path}")
                assert row["last_quote"] is None
            with Client(server, "NEW") as named, Client(server, "*") as all_of_them:
                for client in (named, all_of_them):
                    acknowledged(client, "resync", "NEW")
                    client.is_answered()
                    assert "NEW" not in client.quotes
                store.sql("UPDATE market_data SET delisted = 1=1 WHERE symbol = 'LATER'")
                acknowledged(named, "unsubscribe", "NEW")
                assert named.is_answered()
                acknowledged(all_of_them, "unsubscribe", "*")
                assert all_of_them.is_answered()
                assert not all_of_them.quotes
    store.variables["FEED"] = f"replay:{trades}"
    with servers(tmp_path, store, 1) as [server]:
        with Client(server, "NEW") as named, Client(server, "*") as all_of_them:
            for client in (named, all_of_them):
                wanted = {"current_price": 7.2, "base_price": 7.1234, "volume": 150}
                reads(client, partial(has, client, "NEW", **wanted))
                assert client.versions["NEW"] == 3
        eventually(lambda: server.metric("market_data_prices_saved_total") > 1, SOON)
    assert run(tmp_path, "import", str(file), **store.variables).returncode == 0
    store.variables["FEED"] = "simulator"
    with servers(tmp_path, store) as pair:
        for server in pair:
            eventually(partial(is_everywhere, server, "NEW", 7.2), SOON)
            for quote in quotes_of(server, "NEW").values():
                assert quote
                assert (quote["base_price"], quote["volume"]) == (7.1234, 150)


def test_first_price_of_another_service_is_the_base_price(tmp_path, store):
    """A service that knows no price writes zero and no base price. If it does not name the base price,
    the quote begins at zero, as it always did.
    """
    store.insert("CENT", "0")
    store.insert("ZERO", "0", base_price="NULL")
    with servers(tmp_path, store) as (one, two):
        with Client(one, "ZERO") as named, Client(two, "*") as everything:
            for client in (named, everything):
                client.is_answered()
                assert "ZERO" not in client.quotes
            assert has(everything, "CENT", current_price=0, base_price=0.01)
            store.sql("UPDATE market_data SET last_quote = 12.5")
            for client in (named, everything):
                wanted = {"current_price": 12.5, "base_price": 12.5, "change_percent": 0.0}
                reads(client, partial(has, client, "ZERO", **wanted))
            store.sql("UPDATE market_data SET last_quote = 15")
            for client in (named, everything):
                reads(client, partial(has, client, "ZERO", current_price=15, base_price=12.5))
        for server in (one, two):
            eventually(partial(is_everywhere, server, "ZERO", 15), SOON)


def test_cache_is_told_of_a_price(tmp_path, store):
    """Other services read the values of the cache, too."""
    if not store.redis:
        return
    redis = store.redis
    store.insert("CACHED")
    store.insert("BARE", "0", base_price="NULL")

    def cached(symbol: str) -> Any:
        value = redis.command("GET", f"market_data:{symbol}")
        return json.loads(value)["last_quote"] if value else None

    with servers(tmp_path, store, 1) as [server]:
        assert found(server, "/market-data?symbols=CACHED,BARE")
        eventually(lambda: (cached("CACHED"), cached("BARE")) == (100, 0), SOON)
        store.sql("UPDATE market_data SET last_quote = 111")
        eventually(lambda: cached("CACHED") in (None, 111), SOON)
        path = "/admin/market-data/cache/invalidate?symbols=CACHED"
        assert server.ask(path, "DELETE", role="admin")[0] == 200
        eventually(partial(is_everywhere, server, "CACHED", 111), SOON)


def test_invalidation_reads_what_no_trigger_has_noted(tmp_path, store):
    """A bulk load may run without triggers. An administrator's `invalidate` then helps at once."""
    store.insert("BULK")
    without = (
        "DROP TRIGGER market_data_changed"
        if "SQLITE_PATH" in store.variables
        else "ALTER TABLE market_data DISABLE TRIGGER ALL"
    )
    with servers(tmp_path, store) as (one, two), Client(two, "BULK") as client:
        reads(client, partial(has, client, "BULK", current_price=100))
        store.sql(without)
        store.sql("UPDATE market_data SET last_quote = 111")
        path = "/admin/market-data/cache/invalidate?symbols=BULK"
        for server in (one, two):
            assert server.ask(path, "DELETE", role="admin")[0] == 200
            eventually(partial(is_everywhere, server, "BULK", 111), SOON)
        reads(client, partial(has, client, "BULK", current_price=111))
