"""Prices of every kind of instrument, by every way in, on every way out of two instances."""

import csv
import io
import json
import subprocess
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote as escape

import pytest

from bench.services import Postgres, Redis
from tests.cli.command import COMMAND, environment, run
from tests.faults.cluster import Cluster
from tests.forms import FORMS
from tests.gateway.form_client import FormClient
from tests.processes import ServerProcess, eventually, make_token
from tests.publisher import post, publisher_token, publishing, receive

KEY = "ticks"

FILE = """Symbol,Name,Type,Currency,Last Sale,Price Decimals,Size Decimals
BTC/IDR,Bitcoin,crypto,IDR,"1,500,000,000",0,8
BRK.B,Berkshire Hathaway,stock,,$471.23,,
^GSPC,S&P 500,index,,"6,800.25",2,
^TNX-S,A spread,index,,-0.5,3,
EURUSD=X,Euro,fx,USD,1.08425,5,0
ESZ6,E-mini,future,USD,6812.75,2,0
CLK0,Crude oil,future,USD,-37.63,2,0
7203.T,Toyota,stock,JPY,2500,0,
0700.HK,Tencent,stock,HKD,600.5,1,
BABYDOGE,Baby Doge,crypto,usdt,0.000000001234,12,0
SHIB/USD,Shiba Inu,crypto,usd,0.00001234,8,2
AAPL271217C00190000,A call,option,,0,2,
912810UC0,A bond,bond,,99.984375,6,2
VTSAX,A fund,fund,,140.01,2,3
SPY,An ETF,etf,,680.5,2,
CO2~EU+1,Emissions,other,EUR,71.5,2,
"""


class Kind(NamedTuple):
    """The objects that are published of a symbol, and its decimals."""

    price: str
    size: str
    bid: str
    ask: str
    price_decimals: int
    size_decimals: int


KINDS = {
    "BTC/IDR": Kind("1512345678", "0.00000001", "1512345677", "1512345679", 0, 8),
    "BRK.B": Kind("471.24", "100", "471.23", "471.25", 2, 0),
    "^GSPC": Kind("6801.01", "0", "6801", "6801.02", 2, 0),
    "^TNX-S": Kind("-0.125", "3", "-0.126", "0", 3, 0),
    "EURUSD=X": Kind("1.08431", "1000000", "1.0843", "1.08432", 5, 0),
    "ESZ6": Kind("6813.25", "2", "6813", "6813.5", 2, 0),
    "CLK0": Kind("-37.64", "7", "-40.32", "-37.63", 2, 0),
    "7203.T": Kind("2501", "100", "2500", "2502", 0, 0),
    "0700.HK": Kind("600.6", "100", "600.5", "600.7", 1, 0),
    "BABYDOGE": Kind("0.000000001235", "123456789012", "1E-9", "0.000000001236", 12, 0),
    "SHIB/USD": Kind("0.00001235", "1234567.89", "0.00001234", "0.00001236", 8, 2),
    "AAPL271217C00190000": Kind("0.01", "1", "0", "0.02", 2, 0),
    "912810UC0": Kind("99.992188", "1000.25", "99.984375", "100", 6, 2),
    "VTSAX": Kind("140.02", "0.125", "140.01", "140.03", 2, 3),
    "SPY": Kind("680.51", "100", "680.5", "680.52", 2, 0),
    "CO2~EU+1": Kind("71.51", "5", "71.5", "71.52", 2, 0),
}

LISTED = ",".join(escape(symbol, safe="") for symbol in KINDS)

WAYS = 5


class World(NamedTuple):
    """Two instances with one catalogue, of which the first leads, and how to run commands."""

    leader: ServerProcess
    follower: ServerProcess
    redis: Redis
    folder: Path
    cluster: Cluster


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, shared_postgres: Postgres) -> Iterator[World]:
    """Import the file, and publish a trade and a quote of each kind by every way in."""
    folder = tmp_path_factory.mktemp("world")
    shared_postgres.sql("CREATE DATABASE world")
    (folder / "world.csv").write_text(FILE)
    with Redis() as redis:
        variables = {
            "DATABASE_URL": shared_postgres.url("world"),
            "REDIS_URL": redis.url,
            "FEED": f"push+stream:{KEY}",
        }
        done = run(folder, "import", "world.csv", **variables)
        assert done.returncode == 0, done.stderr
        variables |= {"PRICE_WRITE_INTERVAL": "200ms"}
        with Cluster(folder, redis.url, **variables) as cluster:
            leader = cluster.start()
            cluster.wait_for_leader([leader])
            world = World(leader, cluster.start(), redis, folder, cluster)
            publish_all(world)
            yield world
    shared_postgres.sql("DROP DATABASE world WITH (FORCE)")


def objects(way: str) -> list[str]:
    """Return a trade and a quote of each kind, with numbers as a publisher writes them."""
    found = []
    for symbol, kind in KINDS.items():
        name = json.dumps(symbol.lower())
        found.append(f'{{"symbol":{name},"price":{kind.price},"size":{kind.size},"id":"{way}"}}')
        found.append(
            f'{{"kind":"quote","symbol":{name},"bid":{kind.bid},"ask":{kind.ask},'
            f'"bid_size":{kind.size},"ask_size":{kind.size}}}'
        )
    return found


def publish_all(world: World) -> None:
    """Publish by every way in. No object is rejected."""
    expected = 2 * len(KINDS)
    for way, server in (("post", world.leader), ("queue", world.follower)):
        answer = post(server, "\n".join(objects(way)).encode())
        assert answer.counts == (expected, 0, 0, 0, []), answer.body
    with publishing(world.follower) as publisher:
        publisher.send(f"[{','.join(objects('socket'))}]")
        ack = receive(publisher)
        assert (ack["accepted"], ack["rejected"]) == (expected, [])
    for each in objects("stream"):
        world.redis.command("XADD", KEY, "*", "d", each)
    rows = [
        f"{symbol},{kind.price},{kind.size},cli,{kind.bid},{kind.ask},"
        for symbol, kind in KINDS.items()
    ]
    text = "\n".join(["symbol,price,size,id,bid,ask,ts", *rows, ""])
    (world.folder / "prices.csv").write_text(text)
    url = world.leader.quotes_url.replace("/ws/quotes", "/ws/prices")
    done = run(
        world.folder, "publish", "prices.csv", "--url", url, QUOTESTREAM_TOKEN=publisher_token()
    )
    assert done.returncode == 0, done.stderr
    for server in (world.leader, world.follower):
        eventually(lambda: all(is_whole(server, each) for each in KINDS))  # noqa: B023 (called here)


def is_whole(server: ServerProcess, symbol: str) -> bool:
    """Whether a symbol has all of its trades."""
    return exact(quotes(server)[symbol]["volume"]) == WAYS * Decimal(KINDS[symbol].size)


def quotes(server: ServerProcess) -> dict[str, dict[str, Any]]:
    """Return the quotes as HTTP writes them, with their numbers as decimals."""
    status, text = server.request(
        "GET", f"/quotes?symbols={LISTED}", Authorization=f"Bearer {make_token()}"
    )
    assert status == 200
    found = json.loads(text, parse_float=Decimal)
    return {each["quote"]["symbol"]: each["quote"] for each in found}


def exact(number: Any) -> Decimal:
    """Return a number as its JSON shows it."""
    return Decimal(repr(number)) if isinstance(number, float) else Decimal(number)


def check(quote: dict[str, Any]) -> None:
    """Check the numbers of one quote against what was published."""
    symbol = quote["symbol"]
    kind = KINDS[symbol]
    price, size = Decimal(kind.price), Decimal(kind.size)
    for name in ("current_price", "open", "high", "low"):
        assert exact(quote[name]) == price, (symbol, name)
    for name, value in (("bid", kind.bid), ("ask", kind.ask)):
        assert exact(quote[name]) == Decimal(value), (symbol, name)
    assert exact(quote["bid_size"]) == exact(quote["ask_size"]) == size, symbol
    assert exact(quote["volume"]) == WAYS * size, symbol
    base = exact(quote["base_price"])
    assert exact(quote["change"]) == price - base, symbol
    assert (quote["change_percent"] is None) is (base <= 0), symbol
    for name in ("current_price", "base_price", "change", "open", "high", "low", "bid", "ask"):
        assert shown(exact(quote[name])) <= kind.price_decimals, (symbol, name)
    for name in ("volume", "bid_size", "ask_size"):
        assert shown(exact(quote[name])) <= kind.size_decimals, (symbol, name)


def shown(number: Decimal) -> int:
    """Return the decimals that a number needs."""
    exponent = number.normalize().as_tuple().exponent
    assert isinstance(exponent, int)
    return max(0, -exponent)


def test_both_instances_have_what_was_published(world: World) -> None:
    """Over HTTP, after each way in: the volume is the exact sum."""
    for server in (world.leader, world.follower):
        found = quotes(server)
        assert found.keys() == KINDS.keys()
        for quote in found.values():
            check(quote)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_has_what_was_published(world: World, form: str) -> None:
    """On the stream of both instances."""
    for server in (world.leader, world.follower):
        with FormClient(server, form, symbols=LISTED) as client:
            while client.quotes.keys() != KINDS.keys():
                client.receive()
            for quote in client.quotes.values():
                check(quote)


def test_table_and_lists_have_the_price(world: World, shared_postgres: Postgres) -> None:
    """`market_data`, which other services read, `/market-data`, `/instruments` and the command."""

    def stored() -> dict[str, Decimal]:
        rows = shared_postgres.sql("SELECT symbol, last_quote FROM market_data", "world")
        pairs = [row.split("|") for row in rows.splitlines()]
        return {symbol: Decimal(price) for symbol, price in pairs if symbol in KINDS}

    expected = {symbol: Decimal(kind.price) for symbol, kind in KINDS.items()}
    eventually(lambda: stored() == expected)
    for server in (world.leader, world.follower):
        _, data = server.ask(f"/market-data?symbols={LISTED}")
        assert {each["symbol"]: exact(each["last_quote"]) for each in data} == expected
        for symbol in KINDS:
            status, found = server.ask(f"/instruments/{escape(symbol, safe='')}")
            assert (status, found["symbol"]) == (200, symbol)
            decimals = found["price_decimals"], found["size_decimals"]
            assert decimals == KINDS[symbol][4:]


def test_trades_bars_and_charts_have_it(world: World) -> None:
    """Each way in made one trade; a bar has them all, at prices of the instrument's decimals."""
    for server in (world.leader, world.follower):
        for symbol, kind in KINDS.items():
            name, price = escape(symbol, safe=""), Decimal(kind.price)
            _, found = server.ask(f"/trades?symbol={name}")
            trades = [(exact(each["price"]), exact(each["size"])) for each in found["trades"]]
            assert {each[0] for each in trades} <= {price}
            assert {each[1] for each in trades} <= {Decimal(kind.size)}
            _, info = server.ask(f"/udf/symbols?symbol={name}")
            assert info["pricescale"] == 10**kind.price_decimals
            assert info["volume_precision"] == kind.size_decimals
            _, found = server.ask(f"/bars?symbols={name}&timeframe=1d")
            bars = found["bars"][symbol]
            for bar in bars:
                assert {exact(bar[each]) for each in "ohlc"} == {price}
                assert shown(exact(bar["vw"])) <= kind.price_decimals if bar["vw"] else True
            assert sum(exact(bar["v"]) for bar in bars) == WAYS * Decimal(kind.size), symbol
            assert sum(bar["n"] for bar in bars) == WAYS, symbol
            _, chart = server.ask(f"/udf/history?symbol={name}&resolution=1D&from=0&to=4000000000")
            assert {exact(each) for each in chart["c"]} == {price}, symbol


def test_a_pipe_of_watch_has_it(world: World) -> None:
    """As JSON lines, for programs."""
    options = ["--json", "--url", world.follower.quotes_url, "--token", make_token()]
    found = dict[str, Any]()
    with subprocess.Popen(
        [*COMMAND, "watch", *KINDS, *options],
        cwd=world.folder,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        while found.keys() != KINDS.keys():
            line = json.loads(process.stdout.readline())
            if line["type"] == "quote":
                found[line["symbol"]] = line["quote"]
        process.kill()
    for quote in found.values():
        check(quote)


def test_export_is_a_table_of_it(world: World) -> None:
    """The export of bars has each symbol in its spelling, and its prices."""
    options = ["--timeframe", "1d", "--url", world.leader.http_url]
    done = run(
        world.folder,
        *("export", "bars", "--symbols", ",".join(KINDS)),
        *options,
        QUOTESTREAM_TOKEN=make_token(),
    )
    rows = [*csv.DictReader(io.StringIO(done.stdout))]
    assert {row["symbol"] for row in rows} == KINDS.keys()
    for row in rows:
        assert Decimal(row["c"]) == Decimal(KINDS[row["symbol"]].price)


def test_restarted_cluster_has_it(world: World) -> None:
    """All instances end, and Redis forgets everything: the table has the prices."""
    for server in (world.leader, world.follower):
        server.stop()
    world.redis.command("FLUSHALL")
    server = world.cluster.start()
    world.cluster.wait_for_leader([server])
    for quote in quotes(server).values():
        check(quote)
