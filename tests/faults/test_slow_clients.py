"""Clients that read slowly or not at all, on real sockets: their cost and their end."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.fanout.breaker import MAX_REOPENINGS
from tests.faults.cut import cut
from tests.gateway.wire import Client, RawClient, head, new_user, target
from tests.processes import ServerProcess, eventually, make_token
from tests.stopwatch import Stopwatch

SYMBOLS = 500
MUTE_CLIENTS = 1000

MEMORY_PER_MUTE_CLIENT = 256 * 1024
"""Bytes of the server's memory that a client on 500 symbols may cost that never reads: its snapshot
(190 KB), its subscriptions, and its pending symbols.
"""

RECEIVE_BUFFER = 4096
"""Bytes of a client's receive buffer: few, so that it is full soon."""


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Start a server with short limits for slow clients."""
    with ServerProcess(
        tmp_path_factory.mktemp("hasty"),
        PRICE_UPDATE_INTERVAL="10ms",
        WS_STALL_TIMEOUT="100ms",
        WS_CIRCUIT_BREAKER_THRESHOLD="2",
        WS_CIRCUIT_BREAKER_RECOVERY="300ms",
        WS_PING_INTERVAL="1s",
    ) as process:
        yield process


class MuteClient(RawClient):
    """A client that connects and then does not read; its kernel takes few bytes for it."""

    def __init__(self, server: ServerProcess, symbols: str, user: str = "") -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        self.socket.settimeout(15)
        self.socket.connect(server.address)
        self.received = b""
        self.send(head(target(symbols, make_token(user or new_user()))))
        assert self.read_head().startswith("HTTP/1.1 101 ")


def breakers(server: ServerProcess, state: str) -> float:
    return server.metric(f'market_data_circuit_breakers{{state="{state}"}}')


def closed(server: ServerProcess, code: int) -> float:
    return server.metric(f'market_data_connections_closed_total{{code="{code}"}}')


def resident(server: ServerProcess) -> int:
    text = Path(f"/proc/{server.process.pid}/statm").read_text()
    return int(text.split()[1]) * 4096


def test_client_that_never_reads_ends_with_4429(hasty):
    """The client's breaker opens and tries again, and in the end the server closes the connection.
    Other clients miss no version.
    """
    before = closed(hasty, 4429)
    with MuteClient(hasty, "*"), Client(hasty, "AAPL") as quick:
        eventually(lambda: breakers(hasty, "open") == 1)
        eventually(lambda: closed(hasty, 4429) == before + 1)
        while quick.connection.protocol.close_rcvd is None:
            version = quick.versions.get("AAPL", 0)
            quick.receive()
            if quick.versions["AAPL"] > version + 50 or version > 100:
                break
        assert quick.is_answered()
    hasty.await_event("circuit breaker", reason="given_up")
    changes = [line["reason"] for line in hasty.events("circuit breaker")]
    assert {"open", "half_open", "given_up"} <= set(changes)
    assert changes.count("open") <= 1 + MAX_REOPENINGS
    eventually(lambda: breakers(hasty, "open") + breakers(hasty, "half_open") == 0)


def test_client_that_reads_again_gets_current_quotes(hasty):
    """The half-open breaker sends its trials and closes. The client's quotes are whole and new."""
    with MuteClient(hasty, "*") as client:
        eventually(lambda: breakers(hasty, "open") == 1)
        latest: dict[str, int] = {}
        deadline = time.monotonic() + 10
        replaced = 0
        while replaced < 100:
            assert time.monotonic() < deadline
            message = client.read_message()
            kinds = {op["op"] for op in message.get("operations", [])}
            for symbol, version in message.get("versions", {}).items():
                if kinds == {"replace"}:
                    assert version == latest[symbol] + 1
                    replaced += 1
                else:
                    assert version >= latest.get(symbol, 0)
                latest[symbol] = version
        eventually(lambda: breakers(hasty, "open") + breakers(hasty, "half_open") == 0)


@pytest.mark.parametrize("symbols", [None, "*"], ids=["quiet", "busy"])
def test_cut_client_is_found_within_two_heartbeats(tmp_path, symbols):
    """The server soon closes a client whose cable was pulled, with and without prices on their way
    to it.
    """
    with (
        ServerProcess(tmp_path, PRICE_UPDATE_INTERVAL="10ms", WS_PING_INTERVAL="1s") as server,
        RawClient(server, head(target(symbols))) as client,
    ):
        client.read_head()
        eventually(lambda: server.metric("market_data_connections_total") == 1)
        cut(client.socket)
        watch = Stopwatch(server.process.pid)
        eventually(lambda: closed(server, 4408) == 1, timeout=20)
        # Two beats and the moment of the third, then closing; each a wheel's second late at most.
        assert watch.seconds < 3 * (1 + 1) + (2 + 1) + 1


def test_mute_clients_are_bounded(tmp_path):
    """A thousand clients that never read, on every symbol while all move, cost little memory."""
    with (
        ServerProcess(tmp_path, PRICE_UPDATE_INTERVAL="250ms") as server,
        Client(server, "*") as one,
    ):
        assert one.is_answered()
        symbols = ",".join(list(one.quotes)[:SYMBOLS])
        empty = resident(server)
        user = [new_user() for _ in range(MUTE_CLIENTS)]
        mute = [MuteClient(server, symbols, name) for name in user]
        try:
            eventually(lambda: server.metric("market_data_connections_total") == MUTE_CLIENTS + 1)
            until = server.metric("market_data_feed_updates_total") + 5 * len(one.quotes)
            eventually(lambda: server.metric("market_data_feed_updates_total") > until, timeout=60)
            assert resident(server) - empty < MUTE_CLIENTS * MEMORY_PER_MUTE_CLIENT
        finally:
            for client in mute:
                client.socket.close()
