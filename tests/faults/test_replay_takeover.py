"""A replay in a cluster whose leaders end: each row is played once, whatever the order of its time."""

import signal
from pathlib import Path

import pytest

from tests.faults.cluster import Cluster, Watcher
from tests.processes import eventually

START = 1_700_000_000_000

LATE_MS = 60_000
"""How late the late prints are: a minute."""

SYMBOLS = ("AAPL", "MSFT")

ROWS = 120
"""Of the file: with SPACING_MS a lap takes 2.4 s, less than a takeover."""

SPACING_MS = 20


def write_day(path: Path, rows: int = ROWS) -> Path:
    """Write trades of one share, of both symbols in turn. The n-th trade of a symbol has the price n.

    Every third row is a late print, also the last row. Each row has the time of another row.
    """
    lines = [
        f"{START + SPACING_MS * (n // 2 * 2) - (LATE_MS if n % 3 == 2 else 0)},"
        f"{SYMBOLS[n % 2]},{n // 2 + 1},1"
        for n in range(rows)
    ]
    path.write_text("\n".join(["timestamp_ms,symbol,price,size", *lines, ""]))
    return path


def volume_less_price(cluster: Cluster, symbol: str, lap_trades: int) -> set[int]:
    """Return for all quotes by how much the volume differs from the price, apart from whole laps.

    Each trade is of one share. So this is {0} if each of them was played once.
    """
    return {
        (quote["volume"] - round(quote["current_price"])) % lap_trades
        for quote in cluster.seen.values()
        if quote["symbol"] == symbol and quote["volume"]
    }


def end_leader(cluster: Cluster, number: int) -> Watcher:
    """End the leader of two instances. Return a client of the next one."""
    leader = cluster.start()
    cluster.wait_for_leader([leader])
    follower = cluster.start()
    one, other = (cluster.watch(each, ",".join(SYMBOLS)) for each in (leader, follower))
    cluster.moves_on([other])
    old = other.epochs
    one.over = number == signal.SIGKILL
    leader.process.send_signal(number)
    other.wait_for(lambda it: it.epochs.isdisjoint(old))
    return other


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGUSR1])
def test_late_prints_do_not_confuse_the_next_leader(tmp_path, redis, number):
    """Every third row has a time of a minute before. No row is played twice or left out."""
    rows = 1200
    variables = {"FEED": f"replay:{write_day(tmp_path / 'day.csv', rows)}"}
    with Cluster(tmp_path, redis.url, **variables) as cluster:
        other = end_leader(cluster, number)
        cluster.moves_on([other])
        for symbol in SYMBOLS:
            assert volume_less_price(cluster, symbol, rows) == {0}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGUSR1])
def test_loop_goes_on_in_its_lap(tmp_path, redis, number):
    """The next leader goes on in the lap that was being played, and begins the next one after it."""
    variables = {"FEED": f"replay:{write_day(tmp_path / 'day.csv')}", "REPLAY_LOOP": "1"}
    with Cluster(tmp_path, redis.url, **variables) as cluster:
        other = end_leader(cluster, number)
        volumes = {each: other.document["quotes"][each]["volume"] for each in SYMBOLS}
        other.wait_for(
            lambda it: all(
                it.document["quotes"][each]["volume"] > volumes[each] + ROWS for each in SYMBOLS
            )
        )
        for symbol in SYMBOLS:
            assert volume_less_price(cluster, symbol, ROWS // 2) == {0}


def test_day_that_has_ended_is_not_played_again(tmp_path, redis):
    """The last row is a late print. The next leader plays nothing, and says that the feed has ended."""
    day = write_day(tmp_path / "day.csv")
    with Cluster(tmp_path, redis.url, FEED=f"replay:{day}", REPLAY_SPEED="100") as cluster:
        leader = cluster.start()
        cluster.wait_for_leader([leader])
        follower = cluster.start()
        other = cluster.watch(follower, ",".join(SYMBOLS))
        other.wait_for(lambda it: it.status == ("stale", "feed_ended"))
        quotes = dict(other.document["quotes"])
        assert {each["volume"] for each in quotes.values()} == {ROWS // 2}
        leader.process.kill()
        eventually(lambda: cluster.leads(follower))
        follower.await_event("feed ended")
        other.wait_for(lambda it: it.status == ("stale", "feed_ended"))
        assert other.document["quotes"] == quotes


def test_another_file_is_played_from_its_beginning(tmp_path, redis):
    """The next leader has another file, with the same times. It plays all of its rows."""
    first, second = write_day(tmp_path / "one.csv"), write_day(tmp_path / "other.csv", ROWS // 2)
    with Cluster(tmp_path, redis.url, REPLAY_SPEED="100") as cluster:
        leader = cluster.start(FEED=f"replay:{first}")
        cluster.wait_for_leader([leader])
        follower = cluster.start(FEED=f"replay:{second}")
        other = cluster.watch(follower, "AAPL")
        other.wait_for(lambda it: it.status == ("stale", "feed_ended"))
        assert other.document["quotes"]["AAPL"]["volume"] == ROWS // 2
        leader.process.kill()
        other.wait_for(lambda it: it.document["quotes"]["AAPL"]["volume"] == ROWS * 3 // 4)
