"""Bars of real servers against plain Python: over the stream, in `GET /bars`, and after a takeover."""

import json
import random
import signal
import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from server.quotes.quote import from_microseconds
from tests.cli.command import run
from tests.faults.cluster import Cluster
from tests.processes import ServerProcess, eventually, make_token
from tests.publisher import post

START = 1_764_000_000
"""A time in seconds, in the middle of no minute's end."""

Row = tuple[str, float, int, int]
"""A trade: symbol, price, size, and its time in milliseconds."""


def oracle(rows: Sequence[Row], symbol: str, seconds: int = 60) -> list[dict[str, Any]]:
    """Return the bars of a symbol, without what the server alone decides."""
    bars = []
    mine = sorted((row for row in rows if row[0] == symbol), key=lambda row: row[3])
    for period, some in groupby(mine, key=lambda row: row[3] // 1000 // seconds):
        _, prices, sizes, _ = zip(*some, strict=True)
        turnover = sum(price * size for price, size in zip(prices, sizes, strict=True))
        t = from_microseconds(period * seconds * 1_000_000).isoformat().replace("+00:00", "Z")
        ends = {"o": prices[0], "h": max(prices), "l": min(prices), "c": prices[-1]}
        total = sum(sizes)
        vw = {"vw": pytest.approx(turnover / total, abs=0.0051)}
        bars.append({"t": t, **ends, "v": total, "n": len(sizes), **vw})
    return bars


def bars_of(server: ServerProcess, symbol: str, timeframe: str = "1m") -> list[dict[str, Any]]:
    """Return the bars of `GET /bars`."""
    query = f"symbols={symbol}&timeframe={timeframe}&start=2025-11-20&limit=10000"
    status, answer = server.ask(f"/bars?{query}")
    assert status == 200, answer
    found: list[dict[str, Any]] = answer["bars"].get(symbol, [])
    return found


def plain(bars: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return bars without what the server alone decides."""
    return [{key: bar[key] for key in bar if key not in ("final", "rev")} for bar in bars]


def day(rows: int, seed: int) -> list[Row]:
    """Return trades of two symbols in half an hour, each with a time of its own, some late."""
    choose = random.Random(seed)
    found = []
    for number in range(rows):
        late = choose.choice([0, 0, 0, 0, 0, 40_000])
        time_ms = START * 1000 + number * 1_800_000 // rows - late
        price = choose.randint(9_900, 10_100) / 100
        found.append((choose.choice(["AAPL", "MSFT"]), price, choose.randint(1, 100), time_ms))
    return found


def write(path: Path, rows: Sequence[Row]) -> Path:
    """Write a file for a replay."""
    lines = [f"{time_ms},{symbol},{price},{size}" for symbol, price, size, time_ms in rows]
    path.write_text("\n".join(["timestamp_ms,symbol,price,size", *lines, ""]))
    return path


def stream(server: ServerProcess, symbols: Sequence[str], timeframe: str) -> Iterator[Any]:
    """Subscribe, and return each message about bars."""
    with connect(server.url("TSLA", make_token()), max_queue=None) as connection:
        command = {"action": "subscribe", "bars": symbols, "timeframe": timeframe}
        connection.send(json.dumps(command))
        while True:
            try:
                message = json.loads(connection.recv(timeout=5))
            except TimeoutError:
                return
            if message["type"] in ("ack", "bar", "bars_end", "bars_missed"):
                yield message


@pytest.mark.parametrize(("timeframe", "seconds"), [("1m", 60), ("5m", 300)])
def test_replayed_day(tmp_path, timeframe, seconds):
    """The stream's last state of each bar, `/bars` and plain Python have the same bars."""
    rows = day(3000, seed=1)
    path = write(tmp_path / "day.csv", rows)
    variables = {"FEED": f"replay:{path}", "REPLAY_SPEED": "300"}
    newest = dict[tuple[str, str], dict[str, Any]]()
    ended = ""
    with ServerProcess(tmp_path, **variables) as server:
        for message in stream(server, ["AAPL", "MSFT"], timeframe):
            if message["type"] == "bars_end":
                assert message["t"] > ended, "the ends of minutes go on"
                ended = message["t"]
            elif message["type"] == "bar":
                bar, key = message["bar"], (message["symbol"], message["bar"]["t"])
                before = newest.get(key)
                assert before is None or (bar["final"], bar["rev"]) >= (
                    before["final"],
                    before["rev"],
                )
                assert before or not bar["final"] or bar["t"] > ended or bar["rev"]
                newest[key] = bar
        for symbol in ("AAPL", "MSFT"):
            finals = bars_of(server, symbol, timeframe)
            assert plain(finals) == oracle(rows, symbol, seconds)
            assert all(bar["final"] for bar in finals)
            streamed = {t: bar for (name, t), bar in newest.items() if name == symbol}
            # The client came when the replay had begun.
            assert [streamed[bar["t"]] for bar in finals[3:]] == finals[3:]


def test_killed_leader_loses_and_repeats_nothing(tmp_path, redis, database_url):
    """In the middle of a minute, with late trades: each instance has the same bars, and the right
    ones.
    """
    rows = [row for row in day(300, seed=2) if row[0] == "AAPL"]
    assert run(tmp_path, "import", DATABASE_URL=database_url).returncode == 0
    now = int(time.time())
    with Cluster(tmp_path, redis.url, FEED="push", DATABASE_URL=database_url) as cluster:
        leader = cluster.start()
        cluster.wait_for_leader([leader])
        follower = cluster.start()
        # Some are of now, in an open minute. The others are of an old one.
        for number in range(0, len(rows), 3):
            rows[number] = (*rows[number][:3], now * 1000 + number)
        for seq, (symbol, price, size, time_ms) in enumerate(rows):
            if seq in (50, 100):
                leader.process.kill()
                leader, follower = follower, cluster.start()
            ts = from_microseconds(time_ms * 1000).isoformat()
            trade = {"symbol": symbol, "price": price, "size": size, "ts": ts, "seq": seq}
            eventually(partial(publish, leader, trade), 30)
        for server in (leader, follower):
            eventually(partial(is_right, server, rows), 20)
        assert bars_of(leader, "AAPL") == bars_of(follower, "AAPL")


def test_follower_has_the_minute_in_which_the_leader_began(tmp_path, redis, database_url):
    """The leader first asks the store for that minute. Later trades then count on all instances."""
    assert run(tmp_path, "import", DATABASE_URL=database_url).returncode == 0
    began_ms = int(time.time() * 1000)
    rows: list[Row] = [("AAPL", 100.0 + number, 10, began_ms + number) for number in range(4)]
    with Cluster(tmp_path, redis.url, FEED="push", DATABASE_URL=database_url) as cluster:
        leader = cluster.start()
        cluster.wait_for_leader([leader])
        follower = cluster.start()
        for seq, (symbol, price, size, time_ms) in enumerate(rows):
            if seq == 3:
                # The state of the minute reaches the follower without any new version of the quote.
                eventually(partial(is_right, leader, rows[:3]), 20)
                eventually(lambda: follower.metric("market_data_bus_gaps_total") > 0, 20)
            trade = {"symbol": symbol, "price": price, "size": size, "ts": time_ms * 1000}
            eventually(partial(publish, leader, trade | {"seq": seq}), 30)
        for server in (leader, follower):
            eventually(partial(is_right, server, rows), 20)
        assert bars_of(leader, "AAPL") == bars_of(follower, "AAPL")


def test_frozen_leader_does_not_undo_the_next_ones_bars(tmp_path, redis, database_url, request):
    """It wakes with a revision to write. The table has the newer ones of the next leader."""
    assert run(tmp_path, "import", DATABASE_URL=database_url).returncode == 0
    variables = {"FEED": "push", "DATABASE_URL": database_url, "PRICE_WRITE_INTERVAL": "3s"}
    with Cluster(tmp_path, redis.url, **variables) as cluster:
        frozen = cluster.start()
        cluster.wait_for_leader([frozen])
        leader = cluster.start()
        rows: list[Row] = [("AAPL", 100.0 + n, 10, START * 1000 + n) for n in range(9)]

        def publish_row(server: ServerProcess, seq: int) -> None:
            symbol, price, size, time_ms = rows[seq]
            trade = {"symbol": symbol, "price": price, "size": size, "ts": time_ms * 1000}
            eventually(partial(publish, server, trade | {"seq": seq}), 30)

        publish_row(frozen, 0)
        for server in (frozen, leader):
            eventually(partial(is_right, server, rows[:1]), 20)
        publish_row(frozen, 1)
        eventually(partial(is_right, leader, rows[:2]), 20)
        frozen.process.send_signal(signal.SIGSTOP)
        cluster.wait_for_leader([leader])
        for seq in range(2, 9):
            publish_row(leader, seq)
        eventually(partial(is_right, leader, rows), 20)
        sql = request.getfixturevalue("shared_postgres").sql
        database = request.getfixturevalue("database")
        query = "SELECT count, revision, close FROM minute_bars"
        eventually(lambda: sql(query, database).split() == ["9|9|108"], 20)
        written = leader.metric("market_data_bars_written_total")
        frozen.process.send_signal(signal.SIGCONT)
        eventually(partial(is_right, frozen, rows), 30)
        # The next revision needs one more write, after which the frozen one's are over, too.
        rows.append(("AAPL", 90.0, 10, START * 1000 + 9))
        publish_row(leader, 9)
        eventually(lambda: leader.metric("market_data_bars_written_total") > written, 20)
        assert sql(query, database).split() == ["10|10|90"]
        assert bars_of(leader, "AAPL") == bars_of(frozen, "AAPL")


def publish(server: ServerProcess, trade: dict[str, Any]) -> bool:
    """Return whether a trade is in the queue at least. Sent twice, it counts once."""
    try:
        return bool(post(server, trade).body.get("state") in ("applied", "queued"))
    except OSError:
        return False


def is_right(server: ServerProcess, rows: Sequence[Row]) -> bool:
    """Return whether a server has the bars of AAPL."""
    return plain(bars_of(server, "AAPL")) == oracle(rows, "AAPL")
