"""A whole server whose prices come from a stand-in venue on a real socket."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Queue

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from tests.cli.command import complaint
from tests.gateway.wire import Client
from tests.processes import ServerProcess


class Exchange:
    """Speaks as Coinbase does. `say` sends a message on the present connection; `hang_up` ends it."""

    def __init__(self) -> None:
        self.asked: Queue[dict[str, object]] = Queue()
        self._present: Queue[ServerConnection] = Queue()

    def handle(self, connection: ServerConnection) -> None:
        self.asked.put(json.loads(connection.recv()))
        self._present.put(connection)
        try:
            for _ in connection:
                pass
        except ConnectionClosed:
            pass

    def connection(self) -> ServerConnection:
        """Return the next connection that subscribed."""
        return self._present.get(timeout=30)


@contextmanager
def exchange() -> Iterator[tuple[Exchange, str]]:
    stand_in = Exchange()
    with serve(stand_in.handle, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield stand_in, f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()
        thread.join()


def receive_reason(client: Client, reason: str) -> None:
    while client.receive().get("reason") != reason:
        pass


def match(number: int, price: str, size: str = "0.5") -> str:
    trade = {
        "type": "match",
        "product_id": "BTC-USD",
        "trade_id": number,
        "price": price,
        "size": size,
        "time": "2026-11-26T09:30:00.000001Z",
    }
    return json.dumps(trade)


def test_a_venues_prices_reach_clients(tmp_path):
    """A symbol that no catalogue has waits for its first price, which becomes its base price."""
    with (
        exchange() as (venue, url),
        ServerProcess(tmp_path, FEED="coinbase:btc-usd", COINBASE_URL=url) as server,
    ):
        connection = venue.connection()
        assert venue.asked.get()["product_ids"] == ["BTC-USD"]
        with Client(server, "BTC-USD") as client:
            connection.send(match(1, "64000.12"))
            client.receive()
            connection.send(match(2, "64001.5", "0.00000001"))
            connection.send(match(2, "1.0"))
            client.move()
            quote = client.quotes["BTC-USD"]
        assert (quote["current_price"], quote["base_price"]) == (64001.5, 64000.12)
        assert (quote["change"], quote["volume"], quote["type"]) == (1.38, 0.50000001, "CRYPTO")
        assert quote["currency"] == "USD"
        assert server.metric('market_data_venue_connected{venue="coinbase"}') == 1
        duplicate = 'market_data_published_total{result="duplicate",source="coinbase"}'
        assert server.metric(duplicate) == 1


def test_clients_are_told_while_the_venue_is_away(tmp_path):
    with (
        exchange() as (venue, url),
        ServerProcess(tmp_path, FEED="coinbase:BTC-USD", COINBASE_URL=url) as server,
    ):
        first = venue.connection()
        first.send(match(1, "10"))
        with Client(server, "BTC-USD") as client:
            first.close()
            receive_reason(client, "venue_away")
            venue.connection().send(match(5, "11"))
            receive_reason(client, "venue_connected")
        assert server.metric('market_data_venue_missed_trades_total{venue="coinbase"}') == 3
        assert server.metric('market_data_venue_connections_total{venue="coinbase"}') == 2


def test_a_venue_alone_takes_no_published_prices(tmp_path):
    with (
        exchange() as (_, url),
        ServerProcess(tmp_path, FEED="coinbase:BTC-USD", COINBASE_URL=url) as server,
    ):
        assert server.request("POST", "/prices")[0] == 404


@pytest.mark.parametrize(
    ("feed", "words"),
    [
        ("coinbase", "coinbase"),
        ("coinbase:", "coinbase:"),
        ("nasdaq:AAPL", "nasdaq"),
        ("alpaca:AAPL", "without ALPACA_KEY_ID and ALPACA_SECRET_KEY"),
        ("kraken:" + ",".join(f"S{n}" for n in range(501)), "is not allowed"),
    ],
)
def test_feed_that_cannot_be_is_told_in_one_line(tmp_path, feed, words):
    assert words in complaint(tmp_path, "serve", FEED=feed)
