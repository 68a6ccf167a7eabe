"""A whole server that follows four venues at once, each of which sends whatever it likes."""

import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from queue import Queue

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from server.reconnecting import FIRST_DELAY
from tests.feeds.test_publishing import quote
from tests.processes import ServerProcess, eventually

HUGE = "1" + "0" * 30
"""A whole number of more than 64 bits."""

DEEP = "[" * 5000 + "]" * 5000


def coinbase(number: int | str, price: str, symbol: str = "BTC-USD") -> str:
    """Return a trade of Coinbase. `price` is a JSON value."""
    return (
        f'{{"type":"match","product_id":"{symbol}","trade_id":{number},"price":{price},'
        '"size":"1","time":"2026-11-26T09:30:00Z"}'
    )


def kraken(number: int | str, price: str, symbol: str = "BTC/USD") -> str:
    """Return a trade of Kraken."""
    return (
        f'{{"channel":"trade","type":"update","data":[{{"symbol":"{symbol}","trade_id":{number},'
        f'"price":{price},"qty":1,"timestamp":"2026-11-26T09:30:00Z"}}]}}'
    )


def binance(number: int | str, price: str, symbol: str = "BTCUSDT") -> str:
    """Return a trade of Binance."""
    return (
        f'{{"stream":"{symbol.lower()}@trade","data":{{"s":"{symbol}","t":{number},"p":{price},'
        '"q":"1","T":1764149400000000}}'
    )


def alpaca(number: int | str, price: str, symbol: str = "AAPL") -> str:
    """Return a trade of Alpaca."""
    return f'[{{"T":"t","S":"{symbol}","i":{number},"p":{price},"s":1,"t":"2026-11-26T09:30:00Z"}}]'


class Venue:
    """One stand-in. `quoted`: its numbers are texts."""

    def __init__(self, symbol: str, trade: Callable[..., str], *, quoted: bool) -> None:
        self.symbol, self.trade, self.quoted = symbol, trade, quoted
        self.connections: Queue[ServerConnection] = Queue()
        self.count = 0

    def price(self, text: str) -> str:
        """Return a price as the venue writes it."""
        return json.dumps(text) if self.quoted else text


VENUES = {
    "coinbase": Venue("BTC-USD", coinbase, quoted=True),
    "kraken": Venue("BTC/USD", kraken, quoted=False),
    "binance": Venue("BTCUSDT", binance, quoted=True),
    "alpaca": Venue("AAPL", alpaca, quoted=False),
}

ODD_NUMBERS = ["NaN", "Infinity", "1e999", "-1e999", "1_000", "0x10", " 7 ", "١٢", "", "1e15"]
"""As texts they would be taken by Python's `float`, or are beyond every price."""


@contextmanager
def listening(handle: Callable[[ServerConnection], None]) -> Iterator[int]:
    with serve(handle, "127.0.0.1", 0, max_size=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.socket.getsockname()[1]
        server.shutdown()
        thread.join()


def handle(connection: ServerConnection) -> None:
    """Keep a connection for the test, and read what comes."""
    assert connection.request
    venue = VENUES[connection.request.path[1:].split("/")[0]]
    venue.count += 1
    venue.connections.put(connection)
    with suppress(ConnectionClosed):
        for _ in connection:
            pass


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Start a server with all venues."""
    feed = "+".join(f"{name}:{venue.symbol}" for name, venue in VENUES.items())
    with ExitStack() as stack:
        port = stack.enter_context(listening(handle))
        urls = {f"{name.upper()}_URL": f"ws://127.0.0.1:{port}/{name}" for name in VENUES}
        process = ServerProcess(
            tmp_path_factory.mktemp("venues"),
            FEED=feed,
            ALPACA_KEY_ID="key",
            ALPACA_SECRET_KEY="secret",
            **urls,
        )
        yield stack.enter_context(process)


def is_at(server: ServerProcess, symbol: str, price: float) -> bool:
    return bool(quote(server, symbol)[1].get("current_price") == price)


@pytest.fixture(params=VENUES)
def name(request: pytest.FixtureRequest) -> str:
    """The name of a venue."""
    return str(request.param)


numbers = iter(range(1, 10**6))


def test_odd_messages_cost_nothing_but_themselves(server: ServerProcess, name: str) -> None:
    """Wrong numbers, other symbols, endless nesting, more than 64 bits. The next good trade counts on
    the same connection, and the log does not grow with them.
    """
    venue = VENUES[name]
    connection = venue.connections.get(timeout=30)
    before = len(server.log_lines())
    connection.send(venue.trade(next(numbers), venue.price("10")))
    eventually(lambda: is_at(server, venue.symbol, 10))
    odd = [venue.trade(next(numbers), venue.price(each)) for each in ODD_NUMBERS]
    odd += [venue.trade(next(numbers), each) for each in ("null", "true", "[]", "{}", DEEP)]
    odd += [
        venue.trade(each, venue.price("11")) for each in (HUGE, "-" + HUGE, "-1", "null", '"x"')
    ]
    odd += [venue.trade(next(numbers), venue.price("12"), f"X{n}") for n in range(50)]
    odd += [venue.trade(next(numbers), venue.price("12"), each) for each in ("MSFT", "", "\\ud800")]
    odd += [DEEP, "{}", "[]", '""', "1e400", '{"type":"?"}', '[{"T":"?"}]', "x" * 500_000]
    for each in odd * 3:
        connection.send(each)
    last = next(numbers)
    connection.send(venue.trade(last, venue.price("13.5")))
    eventually(lambda: is_at(server, venue.symbol, 13.5))
    assert quote(server, "MSFT")[1]["volume"] == 0
    assert venue.connections.empty()
    lines = server.log_lines()[before:]
    assert len(lines) <= 10, lines
    assert not [line for line in lines if line["level"] == "error"]
    assert server.metric(f'market_data_venue_missed_trades_total{{venue="{name}"}}') < 1000


@contextmanager
def following(folder: Path, port: int, name: str = "coinbase") -> Iterator[ServerProcess]:
    """Start a server that follows one venue on this port."""
    keys = {"ALPACA_KEY_ID": "key", "ALPACA_SECRET_KEY": "secret"}
    url = {f"{name.upper()}_URL": f"ws://127.0.0.1:{port}"}
    feed = f"{name}:{VENUES[name].symbol}"
    with ServerProcess(folder, FEED=feed, LOG_LEVEL="info", **url, **keys) as server:
        yield server


def test_huge_message_costs_the_connection(tmp_path: Path) -> None:
    """Nothing is kept of a message over 1 MiB. The feed comes back by itself."""
    came: Queue[int] = Queue()

    def say_much(connection: ServerConnection) -> None:
        came.put(1)
        with suppress(ConnectionClosed):
            connection.recv()
            if came.qsize() == 1:
                connection.send("x" * 40_000_000)
            connection.send(coinbase(1, '"10"'))
            connection.recv()

    with listening(say_much) as port, following(tmp_path, port) as server:
        eventually(lambda: is_at(server, "BTC-USD", 10))
        assert came.qsize() == 2
        peak = int(
            Path(f"/proc/{server.process.pid}/status").read_text().split("VmHWM:")[1].split()[0]
        )
        assert peak < 150_000


def test_stop_does_not_wait_for_a_venue_that_never_answers(tmp_path: Path) -> None:
    """It has accepted the connection, and the handshake is under way."""
    with (
        socket.create_server(("127.0.0.1", 0)) as venue,
        following(tmp_path, venue.getsockname()[1]) as server,
    ):
        connection, _ = venue.accept()
        with connection:
            assert connection.recv(16)
            assert server.stop(signal.SIGINT) == 0
            assert server.stop_seconds < 3


def test_venue_that_ends_each_connection_does_not_fill_the_log(tmp_path: Path) -> None:
    """The pauses grow, and each attempt has three lines at most."""

    def greet_and_leave(connection: ServerConnection) -> None:
        connection.send('{"type":"subscriptions"}')

    with listening(greet_and_leave) as port, following(tmp_path, port) as server:
        began = time.monotonic()
        server.await_event("venue away", 4)
        # Without pauses, that would take milliseconds.
        assert time.monotonic() - began > FIRST_DELAY / 10
        assert len(server.log_lines()) < 25
