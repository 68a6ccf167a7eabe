"""A table `market_data` that servers share and other services write to."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote as escape

from bench.services import Postgres, Redis
from tests.gateway.wire import Client
from tests.processes import ServerProcess

SOON = 10.0
"""Seconds for a change to be noticed: servers look every two, and the machine may be busy."""

COLUMNS = ("symbol", "name", "category", "last_quote")

Row = dict[str, Any]


class Store:
    """A catalogue that servers share, and other services write to."""

    def __init__(self, folder: Path, postgres: Postgres | None, redis: Redis | None) -> None:
        self._file = folder / "quotes.db"
        self._postgres = postgres
        self.database = ""
        self.redis = redis
        self.variables = {"CATALOGUE": "empty", "PRICE_UPDATE_INTERVAL": "600h"}
        if redis:
            self.variables["REDIS_URL"] = redis.url

    def use(self, database: str) -> None:
        """Use a database of the Postgres, '' for a file of SQLite."""
        self.database = database
        if self._postgres:
            self.variables["DATABASE_URL"] = self._postgres.url(database)
        else:
            self.variables["SQLITE_PATH"] = str(self._file)

    def sql(self, statement: str) -> None:
        """Do what another service does."""
        if self._postgres:
            self._postgres.sql(statement, self.database)
        else:
            with closing(sqlite3.connect(self._file, timeout=10)) as other, other:
                other.execute(statement)

    def insert(self, symbol: str, price: str = "100", **more: object) -> None:
        """Insert a row as a service does that knows the five columns of the contract."""
        values = [f"'{symbol}'", f"'{symbol} Inc.'", "1", price, *map(str, more.values())]
        names = ", ".join([*COLUMNS, *more])
        self.sql(f"INSERT INTO market_data ({names}) VALUES ({', '.join(values)})")


@contextmanager
def servers(folder: Path, store: Store, count: int = 2) -> Iterator[list[ServerProcess]]:
    """Start servers on the store."""
    with ExitStack() as stack:
        started = []
        for number in range(count):
            (folder / str(number)).mkdir(exist_ok=True)
            server = ServerProcess(folder / str(number), **store.variables)
            started.append(stack.enter_context(server))
        yield started
        for server in started:
            assert not [line for line in server.log_lines() if line["level"] == "error"]


def found(server: ServerProcess, path: str) -> list[Row]:
    status, body = server.ask(path)
    assert status == 200, body
    return list(body)


def streamed(server: ServerProcess, symbols: str, symbol: str) -> Row | None:
    """Return the full quote that a new client gets."""
    with Client(server, symbols) as client:
        client.is_answered()
        quote: Row | None = client.quotes.get(symbol)
        return quote


def acknowledged(client: Client, action: str, symbol: str) -> None:
    client.send(action, symbols=[symbol])
    while (answer := client.receive())["type"] != "ack":
        assert answer["type"] in ("status", "quotes_patch"), answer
    assert answer["symbols"] == [symbol]


def subscribed(server: ServerProcess, symbol: str) -> dict[str, Row | None]:
    """Return the full quotes that a client gets for `subscribe` and then for `resync`."""
    with Client(server) as client:
        acknowledged(client, "subscribe", symbol)
        client.is_answered()
        first = client.quotes.pop(symbol, None)
        acknowledged(client, "resync", symbol)
        client.is_answered()
        return {"subscribe": first, "resync": client.quotes.get(symbol)}


def price_of(rows: list[Row], symbol: str, field: str) -> float | None:
    price = next((each[field] for each in rows if each["symbol"] == symbol), None)
    return None if price is None else float(price)


def quotes_of(server: ServerProcess, symbol: str) -> dict[str, Row | None]:
    """Return the whole quote, on each way out that has one."""
    views = found(server, f"/quotes?symbols={escape(symbol)}")
    if not views:
        return {"/quotes": None}
    return {
        "/quotes": views[0]["quote"],
        "handshake": streamed(server, escape(symbol), symbol),
        "handshake *": streamed(server, "*", symbol),
        **subscribed(server, symbol),
    }


def prices_of(server: ServerProcess, symbol: str) -> dict[str, float | None]:
    """Return the price on each way out of a server."""
    code = escape(symbol, safe="")
    prices = {
        "/market-data": price_of(
            found(server, f"/market-data?symbols={code}"), symbol, "last_quote"
        ),
        "/instruments/": server.ask(f"/instruments/{code}")[1].get("last_quote"),
        "list": price_of(found(server, "/instruments"), symbol, "last_quote"),
        "search": price_of(found(server, f"/instruments?query={code}"), symbol, "last_quote"),
    }
    for way, quote in quotes_of(server, symbol).items():
        prices[way] = quote["current_price"] if quote else None
    return prices


def is_everywhere(server: ServerProcess, symbol: str, price: float | None) -> bool:
    return set(prices_of(server, symbol).values()) == {price}


def reads(client: Client, check: Callable[[], bool]) -> None:
    """Read until `check` is true."""
    deadline = time.monotonic() + SOON
    while not check():
        assert time.monotonic() < deadline, client.quotes
        client.receive()


def has(client: Client, symbol: str, **fields: object) -> bool:
    return symbol in client.quotes and fields.items() <= client.quotes[symbol].items()
