"""Instruments of every kind on every way out of a whole server."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote as escape

import pytest

from tests.cli.command import run
from tests.gateway.wire import Client
from tests.processes import ServerProcess, make_token

FILE = """Symbol,Name,Asset Type,CCY,MIC,ISIN,Last Price,Price Decimals,Size Decimals,Prev Close
BTC/USD,Bitcoin,crypto,usd,,,43210.12345678,8,8,43000
EURUSD=X,Euro,FX,USD,,,1.0842,5,0,
^GSPC,S&P 500,index,USD,,,6800.25,2,0,6790
7203.T,Toyota,stock,JPY,XTKS,JP3633400001,2500,0,0,2490
0700.HK,Tencent,stock,HKD,XHKG,,600.5,1,0,
BRK.B,Berkshire,stock,,XNYS,US0846707026,500,2,0,
CLK0,Crude oil May 2020,future,USD,XNYM,,-37.63,2,0,18.27
SHIB/USD,Shiba Inu,crypto,USD,,,0.00001234,8,2,
T 0,Treasury,bond,USD,,,99,,,
"""

SYMBOLS = ["BTC/USD", "EURUSD=X", "^GSPC", "7203.T", "0700.HK", "BRK.B", "CLK0", "SHIB/USD"]

NUMBER = re.compile(
    r'"(current_price|base_price|last_quote|previous_close|change|open|high|low)":(-?[0-9][^,}]*)'
)

FULL_QUOTE = [
    "symbol",
    "name",
    "type",
    "current_price",
    "base_price",
    "change",
    "change_percent",
    "last_updated",
    "volume",
    "market_cap",
    "currency",
    "open",
    "high",
    "low",
    "previous_close",
    "bid",
    "ask",
    "bid_size",
    "ask_size",
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with one instrument of several kinds, whose simulator is fast."""
    folder: Path = tmp_path_factory.mktemp("world")
    (folder / "world.csv").write_text(FILE)
    done = run(folder, "import", "world.csv", "--skip-bad")
    assert done.returncode == 0, done.stderr
    with ServerProcess(folder, PRICE_UPDATE_INTERVAL="50ms") as server:
        yield server


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_symbol_works_in_every_query_path_and_command(world, symbol):
    """As markets write it, in lower case, escaped or not."""
    plain, escaped = symbol.lower().replace("^", "%5E"), escape(symbol, safe="")
    for each in (plain, escaped):
        for path in ("/market-data", "/quotes"):
            status, [found] = world.ask(f"{path}?symbols={each}")
            assert status == 200
            assert found.get("quote", found)["symbol"] == symbol
        status, found = world.ask(f"/instruments/{each}")
        assert (status, found["symbol"]) == (200, symbol)
    status, found = world.ask(f"/instruments?query={escaped}")
    assert symbol in [each["symbol"] for each in found]
    with Client(world, escaped) as client:
        epoch = client.receive()["epoch"]
        assert list(client.quotes) == [symbol]
        client.move()
        for action in ("resync", "unsubscribe", "subscribe"):
            message = client.ask(action, symbols=[symbol.lower()])
            assert (message["type"], message["symbols"]) == ("ack", [symbol])
        held = client.versions[symbol]
    with Client(world, f"{escaped}&resume={epoch}:{escaped}={held}") as client:
        assert client.receive()["recovered"][symbol] in ("current", "patches")


def test_full_quote_has_every_field(world):
    """In the protocol's order; what is not known is null."""
    with Client(world, ",".join(map(escape, SYMBOLS))) as client:
        client.receive()
        for quote in client.quotes.values():
            assert list(quote) == FULL_QUOTE
            assert (quote["bid"], quote["ask"], quote["bid_size"], quote["ask_size"]) == (None,) * 4
        oil, toyota = client.quotes["CLK0"], client.quotes["7203.T"]
        assert (oil["type"], oil["base_price"], oil["change_percent"]) == ("FUTURE", -37.63, None)
        assert (oil["previous_close"], toyota["currency"]) == (18.27, "JPY")
        while any(quote["open"] is None for quote in client.quotes.values()):
            client.receive()
        for quote in client.quotes.values():
            assert quote["low"] <= quote["current_price"] <= quote["high"]
            assert quote["low"] <= quote["open"] <= quote["high"]
        assert client.quotes["CLK0"]["current_price"] < 0


def test_numbers_show_no_more_decimals_than_the_instrument_has(world):
    """In the text itself, on the stream and over HTTP."""
    decimals = {line.split(",")[0]: line.split(",")[7] for line in FILE.splitlines()[1:]}
    listed = ",".join(map(escape, SYMBOLS))
    with Client(world, ",".join(map(escape, SYMBOLS))) as client:
        for _ in range(20):
            client.receive()
        paths = [f"/quotes?symbols={listed}", f"/market-data?symbols={listed}"]
        paths += [f"/instruments/{escape(symbol)}" for symbol in SYMBOLS]
        texts = [
            world.request("GET", path, Authorization=f"Bearer {make_token()}") for path in paths
        ]
    assert {status for status, _ in texts} == {200}
    for part in [part for _, text in texts for part in text.split('{"')]:
        found = re.search(r'symbol":"([^"]*)"', part)
        if found is None:
            continue
        for field, number in NUMBER.findall(part):
            assert shown_decimals(number) <= int(decimals[found[1]]), (found[1], field, number)


def test_instrument_tells_its_reference_data(world):
    """All that section 6 of the contract names."""
    _, found = world.ask("/instruments/7203.T")
    expected = {
        "type": "STOCK",
        "currency": "JPY",
        "exchange": "XTKS",
        "isin": "JP3633400001",
        "base_price": 2500,
        "price_decimals": 0,
        "size_decimals": 0,
        "previous_close": 2490,
        "market_cap": None,
    }
    assert expected.items() <= found.items()
    categories = {"BTC/USD": 5, "EURUSD=X": 6, "^GSPC": 3, "7203.T": 1, "CLK0": 7}
    _, data = world.ask("/market-data?symbols=" + ",".join(map(escape, categories)))
    assert {each["symbol"]: each["category"] for each in data} == categories


def shown_decimals(number: str) -> int:
    """Return the decimals of a JSON number, in which an exponent moves the point."""
    digits, _, exponent = number.lower().partition("e")
    return max(0, len(digits.partition(".")[2]) - int(exponent or 0))
