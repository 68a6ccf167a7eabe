"""Clients of a follower that stop at the feed's end: each has the last prices by then."""

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.faults.cluster import Cluster
from tests.gateway.wire import new_user
from tests.processes import ServerProcess, make_token

SYMBOLS = ("AAPL", "MSFT", "TSLA")

ROWS = 60_000

CLIENTS = {"quick": ("", 0.0), "throttled": ("&interval=2s", 0.0), "slow": ("", 0.01)}
"""What each client adds to its request, and how long it rests after each message, in seconds."""


def write_day(path: Path, last: str) -> Path:
    """Write trades of one share each, and a last row."""
    rows = [f"{1_700_000_000_000 + n},{SYMBOLS[n % 3]},{100 + n % 977},1" for n in range(ROWS)]
    path.write_text("\n".join(["timestamp_ms,symbol,price,size", *rows, last, ""]))
    return path


def volumes_at_the_end(server: ServerProcess, more: str, pause: float) -> dict[str, int]:
    """Connect a client, and stop at the first status. Return each symbol's volume by then."""
    volumes: dict[str, int] = {}
    sock = socket.socket()
    if pause:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(server.address)
    url = server.url(",".join(SYMBOLS), make_token(new_user())) + more
    with connect(url, sock=sock, max_queue=1, ping_interval=None, close_timeout=0.1) as client:
        while (message := json.loads(client.recv(60)))["type"] != "status" or (
            message["reason"] != "feed_ended"
        ):
            for operation in message.get("operations", []):
                _, _, symbol, *field = operation["path"].split("/")
                if operation["op"] == "add":
                    volumes[symbol] = operation["value"]["volume"]
                elif field == ["volume"]:
                    volumes[symbol] = operation["value"]
            time.sleep(pause)
    return volumes


@pytest.mark.parametrize("end", ["1700000060000,TSLA,99,1", "1700000060000,NEW,99,1"])
def test_followers_clients_have_the_last_prices(tmp_path, redis, end):
    """The leader plays 60,000 trades at full speed. No client of the follower misses the last ones."""
    day = write_day(tmp_path / "day.csv", end)
    expected = dict.fromkeys(SYMBOLS, ROWS // 3)
    expected["TSLA"] += "TSLA" in end
    with Cluster(tmp_path, redis.url) as cluster, ThreadPoolExecutor() as threads:
        follower = cluster.start(FEED="bus")
        clients = {
            name: threads.submit(volumes_at_the_end, follower, *how)
            for name, how in CLIENTS.items()
        }
        cluster.watch(follower, "AAPL")
        cluster.start(FEED=f"replay:{day}", REPLAY_SPEED="0")
        assert {name: client.result() for name, client in clients.items()} == dict.fromkeys(
            clients, expected
        )
