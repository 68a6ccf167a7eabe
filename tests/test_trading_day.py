"""Twenty clients, one of them slow, follow a trading day; every patch is applied and checked."""

import asyncio
import json
import socket
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from bench.trading_day import load_day, write_day
from tests.processes import TIMEOUT, ServerProcess

CHOICES = ["AIG", "BAC", "IBM", "AIG,BAC", "BAC,IBM", "AIG,BAC,IBM", "IBM,AAPL", "*"]
"""The clients' subscriptions, in turn."""

CLIENTS = 19
"""The number of quick clients."""

FOLLOWED_SECONDS = 20
"""Seconds of the replay that clients can follow."""

LEADER_TRADES = 400_000
"""The first row, of a symbol that only `*` subscribers watch, some seconds before the others:
meanwhile the clients connect.
"""

DAY_TIMEOUT = 300
"""Seconds in which the clients read 1.4 million messages at full speed. An idle machine needs sixty."""


def apply(document: dict[str, Any], op: str, path: str, value: object = None) -> None:
    """Apply one operation of a patch (RFC 6902 §4). No symbol of the day needs an escape in its path.

    jsonpatch, which the other tests use, takes half a minute for the million operations of a day.
    """
    assert op in ("add", "replace", "remove")
    _, *parents, name = path.split("/")
    for parent in parents:
        document = document[parent]
    assert op == "add" or name in document, f"{path} does not exist"
    if op == "remove":
        del document[name]
    else:
        document[name] = value


class Follower:
    """One client's messages in order, and the document that they make."""

    def __init__(self, symbols: str) -> None:
        self.symbols = symbols
        self.messages: list[dict[str, Any]] = []

    async def follow(self, client: ClientConnection, pause: float = 0) -> None:
        """Read until the server announces the feed's end. A slow client rests after each message."""
        async with client:
            message: dict[str, Any] = {"type": None}
            while message["type"] != "status":
                message = json.loads(await client.recv())
                self.messages.append(message)
                if pause:
                    await asyncio.sleep(pause)
        assert (message["status"], message["reason"]) == ("stale", "feed_ended")

    def check(self) -> tuple[dict[str, Any], int]:
        """Apply all messages. Return the document and the number of versions that an `add` skipped."""
        document: dict[str, Any] = {"quotes": {}}
        versions: dict[str, int] = {}
        jumps = 0
        for message in self.messages:
            if message["type"] != "quotes_patch":
                continue
            for operation in message["operations"]:
                apply(document, **operation)
            operations = {operation["op"] for operation in message["operations"]}
            for symbol, version in message["versions"].items():
                if "replace" in operations:
                    assert version == versions[symbol] + 1, f"{symbol} skips to {version}"
                else:
                    assert version >= versions.get(symbol, 0)
                    jumps += symbol in versions and version > versions[symbol] + 1
                versions[symbol] = version
        return document["quotes"], jumps


async def follow_day(server: ServerProcess) -> tuple[list[Follower], Follower, dict[str, Any]]:
    """Run all clients over the day. Return the quick ones, the slow one, and the server's last
    quotes.
    """
    followers = [Follower(CHOICES[number % len(CHOICES)]) for number in range(CLIENTS)]
    followers.sort(key=lambda follower: follower.symbols == "*")
    slow = Follower("AIG,BAC,IBM")
    async with asyncio.timeout(DAY_TIMEOUT), asyncio.TaskGroup() as tasks:
        for follower in followers:
            client = await connect(
                server.url(follower.symbols),
                max_queue=None,
                ping_interval=None,
                close_timeout=TIMEOUT,
            )
            tasks.create_task(follower.follow(client))
        # Not earlier: the server gives a connection five seconds for its handshake.
        narrow = socket.socket()
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        narrow.connect(server.address)
        client = await connect(
            server.url(slow.symbols), sock=narrow, max_queue=1, ping_interval=None
        )
        tasks.create_task(slow.follow(client, pause=0.02))
    async with connect(server.url("*")) as client:
        truth: dict[str, Any] = {}
        while (message := json.loads(await client.recv()))["type"] == "quotes_patch":
            quotes = [operation["value"] for operation in message["operations"]]
            truth |= {quote["symbol"]: quote for quote in quotes}
    return followers, slow, truth


def assert_equals_server(follower: Follower, truth: dict[str, Any]) -> int:
    """Check that the client's document is the server's. Return the number of skipped versions."""
    quotes, jumps = follower.check()
    wanted = truth if follower.symbols == "*" else follower.symbols.split(",")
    assert quotes == {symbol: truth[symbol] for symbol in wanted}
    return jumps


def test_clients_that_can_follow_see_every_version(tmp_path):
    """At a speed that clients can follow, each sees every version of every symbol in turn."""
    rows = load_day()[60_000:64_000]
    seconds = (int(rows[-1][0]) - int(rows[0][0])) / 1000
    day = write_day(tmp_path / "day.csv", rows)
    speed = f"{seconds / FOLLOWED_SECONDS:.3f}"
    with ServerProcess(tmp_path, FEED=f"replay:{day}", REPLAY_SPEED=speed) as server:
        followers, slow, truth = asyncio.run(follow_day(server))
    for follower in followers:
        jumps = assert_equals_server(follower, truth)
        # The first quotes for `*`, 130 KB, may fill the socket: then the next ones are merged.
        assert jumps == 0 or follower.symbols == "*"
    assert_equals_server(slow, truth)
    assert sum(len(follower.messages) for follower in followers) > len(rows)


@pytest.mark.time_limit(DAY_TIMEOUT + 60)
def test_full_speed_loses_nothing_and_skips_nothing(tmp_path):
    """At full speed a `replace` never skips a version, and all documents end as the server's."""
    rows = load_day()
    leader = [[rows[0][0], "LEADER", "1.00", "1"]] * LEADER_TRADES
    day = write_day(tmp_path / "day.csv", leader + rows)
    # On a busy machine a symbol waits for its next trade for long, and a status would tell of it.
    variables = {"REPLAY_SPEED": "0", "QUOTE_QUIET_AFTER": "1h"}
    with ServerProcess(tmp_path, FEED=f"replay:{day}", **variables) as server:
        followers, slow, truth = asyncio.run(follow_day(server))
        assert server.metric("market_data_feed_updates_total") == LEADER_TRADES + len(rows)
        assert server.metric("market_data_conflated_total") > 0
    assert slow.messages[0]["versions"]["AIG"] == 1, "the day began before all had connected"
    for follower in followers:
        assert_equals_server(follower, truth)
    assert assert_equals_server(slow, truth) > 0
    shares = {"AIG": 0, "BAC": 0, "IBM": 0}
    for _, symbol, _, size in rows:
        shares[symbol] += int(size)
    assert {symbol: truth[symbol]["volume"] for symbol in shares} == shares
    closing = {symbol: float(price) for _, symbol, price, _ in rows}
    assert {symbol: truth[symbol]["current_price"] for symbol in closing} == pytest.approx(closing)
