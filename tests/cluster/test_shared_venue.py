"""A live venue in a cluster: the leader follows it, and the next leader goes on."""

from pathlib import Path
from typing import Any

import pytest

from bench.services import Redis
from tests.faults.cluster import Cluster
from tests.feeds.test_live_server import exchange, match
from tests.processes import ServerProcess, eventually
from tests.publisher import post, publisher_token

CONNECTIONS = 'market_data_venue_connections_total{venue="coinbase"}'


def state(server: ServerProcess) -> tuple[int, float, float]:
    """Return version, volume and price of BTC-USD."""
    _, found = server.ask("/quotes?symbols=BTC-USD")
    quote: dict[str, Any] = found[0]["quote"] if found else {"volume": 0, "current_price": 0}
    return found[0]["version"] if found else 0, quote["volume"], quote["current_price"]


def wait_for_volume(server: ServerProcess, volume: float) -> None:
    """Wait until BTC-USD has traded that much."""
    eventually(lambda: state(server)[1] >= volume)


@pytest.mark.parametrize("feed", ["coinbase:BTC-USD", "push+coinbase:BTC-USD"])
def test_next_leader_goes_on_with_the_venue(tmp_path: Path, redis: Redis, feed: str) -> None:
    """Only the leader connects. What the venue repeats after a takeover counts once, and what came
    while nobody was connected counts if the venue repeats it.
    """
    with (
        exchange() as (venue, url),
        Cluster(
            tmp_path, redis.url, FEED=feed, COINBASE_URL=url, SOURCE_PRIORITY="coinbase"
        ) as cluster,
    ):
        leader = cluster.start()
        cluster.wait_for_leader([leader])
        follower = cluster.start()
        first = venue.connection()
        for number in range(1, 101):
            first.send(match(number, f"{64000 + number}.5", "0.25"))
        for server in (leader, follower):
            wait_for_volume(server, 25)
        assert follower.metric(CONNECTIONS) == 0
        for number in range(101, 201):
            first.send(match(number, f"{64000 + number}.5", "0.25"))
        leader.process.kill()
        second = venue.connection()
        for number in range(51, 301):
            second.send(match(number, f"{64000 + number}.5", "0.25"))
        third = cluster.start()
        for server in (follower, third):
            wait_for_volume(server, 75)
            assert state(server) == (301, 75, 64300.5)
        assert (follower.metric(CONNECTIONS), third.metric(CONNECTIONS)) == (1, 0)
        if feed.startswith("push"):
            outranked = {"symbol": "BTC-USD", "price": 1, "size": 1}
            assert post(third, outranked, publisher_token()).body["state"] == "queued"
            eventually(
                lambda: (
                    follower.metric('market_data_published_total{result="accepted",source="press"}')
                    == 1
                )
            )
            assert state(follower) == (301, 75, 64300.5)
