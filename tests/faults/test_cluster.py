"""Two instances and one Redis: leaders die, freeze and leave, and stores disagree.

In each case no client is closed, and versions never go back within an epoch. A version is the same
quote everywhere. Soon every client has the leader's state. The two instances share no database.
"""

import json
import signal
import time

import pytest
from websockets.sync.client import connect

from tests.cli.command import run
from tests.faults.cluster import FREEZE, LEASE, Cluster, report, two_instances
from tests.gateway.wire import is_move, is_overload, new_user
from tests.processes import eventually, make_token
from tests.stopwatch import Stopwatch


def test_clients_of_both_instances_get_the_same(tmp_path, redis):
    """Both instances' clients get the same quotes with the same versions in the leader's epoch,
    each once.
    """
    with two_instances(tmp_path, redis.url) as (cluster, leader, follower, one, other):
        assert cluster.leads(leader)
        assert not cluster.leads(follower)
        cluster.converge(leader, [one, other])
        assert one.epochs == other.epochs
        assert follower.metric("market_data_bus_gaps_total") == 0
        assert follower.get("/readyz")[0] == 200


def test_client_goes_on_at_another_instance(tmp_path, redis):
    """A position from one instance is a position at any: the client gets the next version, not the
    quote.
    """
    with two_instances(tmp_path, redis.url) as (cluster, _, follower, one, other):
        cluster.moves_on([one, other])
        epoch, version = one.held["AAPL"]
        url = follower.url("AAPL", make_token(new_user()))
        with connect(f"{url}&resume={epoch}:AAPL={version}") as connection:
            messages = (
                message for message in map(json.loads, connection) if not is_overload(message)
            )
            answer, update = next(messages), next(messages)
        assert answer["recovered"]["AAPL"] in ("current", "patches")
        assert update["versions"] == {"AAPL": version + 1}
        assert is_move(update)


def test_symbol_watched_on_a_follower_only_moves(tmp_path, redis):
    """The leader learns what is watched elsewhere, and lists it from its own store."""
    with two_instances(tmp_path, redis.url) as (cluster, leader, follower, _, _):
        watcher = cluster.watch(follower, "IBM,NVDA")
        cluster.moves_on([watcher])
        cluster.converge(leader, [watcher])


def test_lease_that_nobody_renews_is_taken_at_its_end(tmp_path, redis):
    """An instance that asks in vain learns how long the lease lasts, and asks again at its end."""
    redis.command("SET", "quotestream:leader", "somebody who died", "PX", "5000")
    with Cluster(tmp_path, redis.url, BUS_LEASE="60s") as cluster:
        cluster.wait_for_leader([cluster.start()])


def test_leader_is_killed(tmp_path, redis):
    """The follower leads in less than two leases, and goes on from the last versions and prices."""
    with two_instances(tmp_path, redis.url) as (cluster, leader, follower, one, other):
        before = dict(other.held)
        prices = {s: q["current_price"] for s, q in other.document["quotes"].items()}
        watch = Stopwatch(follower.process.pid)
        one.over = True
        leader.process.kill()
        took = other.wait_for(lambda it: it.epochs.isdisjoint({e for e, _ in before.values()}))
        report("takeover after a kill", took)
        assert watch.seconds < 2 * LEASE
        assert prices
        for symbol, (_, version) in before.items():
            assert other.held[symbol][1] >= version
        cluster.moves_on([other])
        cluster.converge(follower, [other])
        assert cluster.still_leads(follower, watch)
        assert follower.get("/readyz")[0] == 200


def test_frozen_leader_comes_back(tmp_path, redis):
    """Redis refuses what the old leader publishes in its old epoch. It follows, and its clients
    converge.
    """
    with two_instances(tmp_path, redis.url) as (cluster, leader, follower, one, other):
        old = one.epochs | other.epochs
        leader.process.send_signal(signal.SIGSTOP)
        report("takeover", other.wait_for(lambda it: it.epochs.isdisjoint(old)))
        time.sleep(FREEZE - 4)
        watch = Stopwatch(follower.process.pid, redis.pid)
        leader.process.send_signal(signal.SIGCONT)
        thawed_at = time.monotonic()
        one.wait_for(lambda it: it.epochs == other.epochs)
        report("the old leader's client has the new leader's state", time.monotonic() - thawed_at)
        cluster.moves_on([one, other])
        cluster.converge(follower, [one, other])
        assert cluster.still_leads(follower, watch)
        assert cluster.leads(follower) is not cluster.leads(leader)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_leader_hands_over(tmp_path, redis, number):
    """At SIGUSR1, and when the leader drains, another instance leads at once. No client's prices
    stop for a lease.
    """
    with two_instances(tmp_path, redis.url) as (cluster, leader, follower, one, other):
        old = other.epochs
        if number == signal.SIGTERM:
            one.over = True  # sent away, as in any drain
        leader.process.send_signal(number)
        watch = Stopwatch(leader.process.pid, follower.process.pid)
        report("handed over", other.wait_for(lambda it: it.epochs.isdisjoint(old)))
        assert watch.seconds < 1
        assert "leader_lost" not in [reason for _, _, reason in one.statuses + other.statuses]
        rest = [one, other] if number == signal.SIGUSR1 else [other]
        cluster.moves_on(rest)
        cluster.converge(follower, rest)


def test_instance_that_only_follows(tmp_path, redis):
    """FEED=bus never leads: without a leader it is stale."""
    with Cluster(tmp_path, redis.url, FEED="bus") as cluster:
        follower = cluster.start()
        watcher = cluster.watch(follower)
        watcher.wait_for(lambda it: it.status == ("stale", "leader_lost"))
        leader = cluster.start(FEED="simulator")
        cluster.moves_on([watcher])
        cluster.converge(leader, [watcher])
        leader.process.kill()
        watcher.wait_for(lambda it: it.status == ("stale", "leader_lost"))
        assert "leader_lost" in follower.get("/readyz")[1]


def test_flood_is_conflated_and_ends_in_the_same_state(tmp_path, redis):
    """Updates that come too fast are sent as full quotes. The journal overflows, and nothing is
    wrong.
    """
    rows = [
        f"{1_700_000_000_000 + n},{s},{100 + n % 977 / 100},{n % 5}"
        for n in range(40_000)
        for s in ("AAPL", "MSFT")
    ]
    (tmp_path / "trades.csv").write_text("timestamp_ms,symbol,price,size\n" + "\n".join(rows))
    with Cluster(tmp_path, redis.url) as cluster:
        follower = cluster.start(FEED="bus")
        watcher = cluster.watch(follower, "AAPL,MSFT")
        leader = cluster.start(FEED=f"replay:{tmp_path / 'trades.csv'}", REPLAY_SPEED="0")
        watcher.wait_for(lambda it: it.status == ("stale", "feed_ended"), 60)
        quotes = leader.ask("/quotes?symbols=AAPL,MSFT")[1]
        assert all(each["version"] > 39_000 for each in quotes)
        newest = {each["quote"]["symbol"]: each for each in quotes}
        watcher.wait_for(
            lambda it: all(it.held[s][1] == newest[s]["version"] for s in ("AAPL", "MSFT"))
        )
        assert watcher.document["quotes"] == {s: each["quote"] for s, each in newest.items()}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGUSR1])
def test_replay_goes_on_with_the_next_leader(tmp_path, redis, number):
    """The next leader continues the replay where the last one was. No trade is sent twice or left
    out.
    """
    start = 1_700_000_000_000
    rows = [f"{start + 20 * n},AAPL,{(1000 + n) / 100},1" for n in range(3000)]
    (tmp_path / "trades.csv").write_text("timestamp_ms,symbol,price,size\n" + "\n".join(rows))
    variables = {"FEED": f"replay:{tmp_path / 'trades.csv'}"}
    with Cluster(tmp_path, redis.url, **variables) as cluster:
        leader = cluster.start()
        cluster.wait_for_leader([leader])
        follower = cluster.start()
        one, other = cluster.watch(leader, "AAPL"), cluster.watch(follower, "AAPL")
        cluster.moves_on([other])
        old = other.epochs
        one.over = number == signal.SIGKILL
        leader.process.send_signal(number)
        other.wait_for(lambda it: it.epochs.isdisjoint(old))
        cluster.moves_on([other])
        # The n-th trade is of one share at n cents: by their difference each is seen to come once.
        quotes = [quote for quote in cluster.seen.values() if quote["volume"]]
        assert len({quote["volume"] - round(100 * quote["current_price"]) for quote in quotes}) == 1


def test_stores_that_disagree(tmp_path, redis):
    """The first instance's list of symbols counts for all, whatever others keep of an earlier life."""
    with Cluster(tmp_path, redis.url, FEED="bus") as cluster:
        lives = tmp_path / "instance0"
        first = cluster.start(FEED="simulator")
        watcher = cluster.watch(first, "AAPL")
        watcher.wait_for(lambda it: it.held["AAPL"][1] > 20)
        watcher.over = True
        assert first.stop() == 0
        redis.command("FLUSHALL")
        assert lives.exists()
        follower = cluster.start(XDG_STATE_HOME=str(lives))
        other = cluster.watch(follower, "AAPL")
        version = other.held["AAPL"][1]
        assert version > 20
        redis.command("DEL", "market_data:AAPL")  # the cache would have told the next
        leader = cluster.start(FEED="simulator")
        cluster.moves_on([other])
        cluster.converge(leader, [other])
        assert other.held["AAPL"][1] > version
        assert leader.metric("market_data_elections_total") == 1


def test_only_the_newest_prices_are_written_back(tmp_path, redis, database_url):
    """The leader takes care of a shared database, and then the next leader does."""
    assert run(tmp_path, "import", DATABASE_URL=database_url).returncode == 0
    variables = {"DATABASE_URL": database_url, "PRICE_WRITE_INTERVAL": "100ms"}
    with two_instances(tmp_path, redis.url, **variables) as (_, leader, follower, one, _):
        saved = "market_data_prices_saved_total"
        eventually(lambda: leader.metric(saved) > 5)
        assert follower.metric(saved) == 0
        one.over = True
        leader.process.kill()
        eventually(lambda: follower.metric(saved) > 5, 2 * LEASE)


def test_leader_meets_a_symbol_that_others_know(tmp_path, redis):
    """The leader knows a symbol from its trades only, and a follower knows a newer version from its
    store. The symbol begins an epoch in which both agree.
    """
    start = 1_700_000_000_000
    rows = [f"{start + 100 * n},{'AAPL' if n < 80 else 'ZZZ'},{10 + n},1" for n in range(3000)]
    (tmp_path / "trades.csv").write_text("timestamp_ms,symbol,price,size\n" + "\n".join(rows))
    with Cluster(tmp_path, redis.url) as cluster:
        leader = cluster.start(FEED=f"replay:{tmp_path / 'trades.csv'}")
        cluster.wait_for_leader([leader])
        known = (
            '{"symbol":"ZZZ","name":"Z","category":1,"last_quote":5,"base_price":4,"version":500,'
        )
        redis.command("HSET", "quotestream:quotes", "ZZZ", known + '"quoted_at":1,"ts":1}')
        follower = cluster.start(FEED="bus")
        other = cluster.watch(follower, "ZZZ")
        assert other.held["ZZZ"][1] == 500
        cluster.moves_on([other])
        cluster.converge(leader, [other])
        assert other.held["ZZZ"][1] > 500
