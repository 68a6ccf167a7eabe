"""Two instances while Redis dies, fills up, forgets or is cut off: afterwards all clients agree."""

import json
import time

import msgspec
import pytest

from tests.faults.cluster import LEASE, Cluster, report, two_instances
from tests.faults.proxy import Proxy
from tests.processes import eventually
from tests.stopwatch import Stopwatch


@pytest.mark.parametrize("fault", ["kill", "freeze"])
def test_redis_goes_and_comes_back(tmp_path, redis, fault):
    """The leader's clients notice nothing. The others' clients are told at once, and converge on
    return.

    A killed Redis comes back empty: then the instance that led leads, and has the newest state.
    """
    with two_instances(tmp_path, redis.url) as (cluster, leader, follower, one, other):
        watch = Stopwatch(follower.process.pid)
        getattr(redis, fault)()
        took = other.wait_for(lambda it: it.status == ("stale", "bus_lost"))
        report(f"stale after {fault}", took)
        assert watch.seconds < (1 if fault == "kill" else 5)
        eventually(lambda: follower.get("/readyz")[0] == 503)
        assert "bus_lost" in follower.get("/readyz")[1]
        assert leader.get("/readyz")[0] == 200
        cluster.moves_on([one])
        time.sleep(2 * LEASE)  # its lease is over by then
        assert one.status[0] == "live"
        quiet = len(other.arrivals)
        cluster.moves_on([one])
        assert len(other.arrivals) == quiet
        redis.thaw() if fault == "freeze" else redis.start()
        watch = Stopwatch(leader.process.pid, redis.pid)
        took = other.wait_for(lambda it: it.status[0] == "live")
        report("live again", took)
        cluster.moves_on([one, other])
        cluster.converge(leader, [one, other])
        assert cluster.still_leads(leader, watch)
        assert follower.get("/readyz")[0] == 200


def test_all_are_cut_off(tmp_path, redis):
    """Redis runs but no instance reaches it for longer than a lease. Then the instance that led
    leads again.
    """
    with (
        Proxy(redis.port) as proxy,
        two_instances(tmp_path, f"redis://127.0.0.1:{proxy.port}/0") as parts,
    ):
        cluster, leader, follower, one, other = parts
        proxy.stall()
        proxy.cut()
        report("stale", other.wait_for(lambda it: it.status == ("stale", "bus_lost")))
        eventually(lambda: redis.command("EXISTS", "quotestream:leader") == "0", 3 * LEASE)
        cluster.moves_on([one])
        proxy.flow()
        watch = Stopwatch(leader.process.pid, redis.pid)
        report("live again", other.wait_for(lambda it: it.status[0] == "live"))
        cluster.moves_on([one, other])
        cluster.converge(leader, [one, other])
        assert cluster.still_leads(leader, watch)
        assert follower.get("/readyz")[0] == 200


def test_redis_loses_everything(tmp_path, redis):
    """The leader writes an emptied Redis anew, also the quotes that do not move. No client notices."""
    # The follower asks for the lease every twenty seconds. If it were the first to ask after Redis lost
    # everything, it would lead.
    variables = {"PRICE_UPDATE_INTERVAL": "1h", "BUS_LEASE": "60s"}
    with Cluster(tmp_path, redis.url, **variables) as cluster:
        leader = cluster.start()
        cluster.wait_for_leader([leader])
        follower = cluster.start()
        one, other = cluster.watch(leader), cluster.watch(follower)
        epoch = f"{leader.metric('market_data_bus_epoch'):.0f}"
        other.wait_for(lambda it: it.epochs == {epoch})
        redis.command("FLUSHALL")
        eventually(lambda: redis.command("HLEN", "quotestream:quotes") == "4")
        cluster.converge(leader, [one, other])
        assert one.epochs == other.epochs == {epoch}


def test_follower_goes_on_alone(tmp_path, redis):
    """With BUS_OUTAGE=local its clients get prices of its own in an epoch of its own. On return all
    get the leader's again.
    """
    with Cluster(tmp_path, redis.url, BUS_OUTAGE="local", BUS_STALE_AFTER="1s") as cluster:
        leader = cluster.start()
        cluster.wait_for_leader([leader])
        follower = cluster.start(PRICE_UPDATE_INTERVAL="10ms")
        one, other = cluster.watch(leader), cluster.watch(follower)
        redis.kill()
        other.wait_for(lambda it: it.status == ("live", "local"))
        assert follower.get("/readyz")[0] == 200
        cluster.moves_on([one, other])
        other.wait_for(lambda it: it.held["AAPL"][1] > one.held["AAPL"][1] + 20)
        assert other.epochs.isdisjoint(one.epochs)
        redis.start()
        other.wait_for(lambda it: it.epochs == one.epochs)
        cluster.moves_on([one, other])
        cluster.converge(leader, [one, other])


@pytest.mark.parametrize("whom", ["leader", "follower"])
@pytest.mark.parametrize("how", ["cut", "stall"])
def test_one_instance_is_cut_off(tmp_path, redis, whom, how):
    """A follower is stale until it is back. A leader goes on for its own clients while another
    leads for the rest; on return it follows.
    """
    with Proxy(redis.port) as proxy, Cluster(tmp_path, redis.url) as cluster:
        behind = {"REDIS_URL": f"redis://127.0.0.1:{proxy.port}/0"}
        leader = cluster.start(PRICE_UPDATE_INTERVAL="30ms", **(behind if whom == "leader" else {}))
        cluster.wait_for_leader([leader])
        follower = cluster.start(**(behind if whom == "follower" else {}))
        one, other = cluster.watch(leader), cluster.watch(follower)
        cluster.moves_on([one, other])
        old, watch = one.epochs, Stopwatch(leader.process.pid, follower.process.pid, redis.pid)
        proxy.stall()
        if how == "cut":
            proxy.cut()
        if whom == "follower":
            other.wait_for(lambda it: it.status == ("stale", "bus_lost"))
            cluster.moves_on([one])
        else:
            report("takeover", other.wait_for(lambda it: it.epochs.isdisjoint(old)))
            cluster.moves_on([one, other])
            assert one.epochs == old
        proxy.flow()
        newest = leader if whom == "follower" else follower
        one.wait_for(lambda it: it.epochs == other.epochs)
        cluster.moves_on([one, other])
        cluster.converge(newest, [one, other])
        assert cluster.still_leads(newest, watch)


@pytest.mark.parametrize("lease", ["lasts", "is over"])
def test_leader_comes_back_after_its_successor_died(tmp_path, redis, lease):
    """The old leader leads again, and goes on from its successor's last prices. It does so at once,
    or follows first for as long as the successor's lease lasts.
    """
    with Proxy(redis.port) as proxy, Cluster(tmp_path, redis.url) as cluster:
        behind = {"REDIS_URL": f"redis://127.0.0.1:{proxy.port}/0"}
        leader = cluster.start(PRICE_UPDATE_INTERVAL="20ms", **behind)
        cluster.wait_for_leader([leader])
        successor = cluster.start(PRICE_UPDATE_INTERVAL="1s")
        one, other = cluster.watch(leader), cluster.watch(successor)
        old = one.epochs
        proxy.stall()
        other.wait_for(lambda it: it.epochs.isdisjoint(old))
        one.wait_for(lambda it: it.held["AAPL"][1] > other.held["AAPL"][1] + 50)
        cluster.moves_on([other])
        other.over = True
        successor.process.kill()
        if lease == "is over":
            eventually(lambda: redis.command("EXISTS", "quotestream:leader") == "0", 2 * LEASE)
        # The published version. A price that only its own clients had died with it.
        state = json.loads(redis.command("HGET", "quotestream:quotes", "AAPL"))
        # The first version is left out.
        last = state.get("version", 1)
        ahead = one.held["AAPL"][1]
        proxy.flow()
        one.wait_for(lambda it: it.epochs.isdisjoint(old | other.epochs))
        cluster.moves_on([one])
        cluster.converge(leader, [one])
        (epoch,) = one.epochs
        begun_with = min(v for e, s, v in cluster.seen if (e, s) == (epoch, "AAPL"))
        assert last <= begun_with < ahead


def test_messages_are_lost(tmp_path, redis):
    """A follower notices a missing batch by the next one's number. It costs a full quote."""
    with two_instances(tmp_path, redis.url) as (cluster, leader, _, one, other):
        for _ in range(5):
            redis.command("CLIENT", "KILL", "TYPE", "pubsub")
            cluster.moves_on([one, other])
            cluster.converge(leader, [one, other])
        epoch = one.epochs
        redis.command("PUBLISH", "price_updates", "not a batch")
        cluster.moves_on([one, other])
        assert one.epochs == other.epochs == epoch


def test_batch_is_skipped(tmp_path, redis):
    """A number that is left out, as if a batch had been lost, is counted as a gap."""
    with two_instances(tmp_path, redis.url) as (cluster, leader, follower, one, other):
        epoch = int(leader.metric("market_data_bus_epoch"))
        forged = msgspec.msgpack.encode([epoch, 10**9, [], []])
        redis.publish("price_updates", forged)
        eventually(lambda: follower.metric("market_data_bus_gaps_total") >= 1)
        cluster.moves_on([one, other])
        cluster.converge(leader, [one, other])


def test_redis_is_down_at_the_start(tmp_path, redis):
    """The server starts, streams what its store knows, says that it is stale, and leads later."""
    redis.kill()
    with Cluster(tmp_path, redis.url) as cluster:
        server = cluster.start()
        watcher = cluster.watch(server)
        watcher.wait_for(lambda it: it.status == ("stale", "bus_lost"))
        assert server.get("/readyz")[0] == 503
        redis.start()
        watcher.wait_for(lambda it: it.status[0] == "live")
        cluster.moves_on([watcher])
        cluster.converge(server, [watcher])


def test_redis_is_full(tmp_path, redis):
    """Probes come back all the same. The followers notice the silent leader, and the log says why."""
    with two_instances(tmp_path, redis.url) as (cluster, leader, follower, one, other):
        redis.command("CONFIG", "SET", "maxmemory", "1")
        other.wait_for(lambda it: it.status == ("stale", "leader_lost"))
        cluster.moves_on([one])
        eventually(lambda: "maxmemory" in leader.log.read_text())
        assert follower.get("/readyz")[0] == 503
        redis.command("CONFIG", "SET", "maxmemory", "0")
        other.wait_for(lambda it: it.status[0] == "live")
        cluster.moves_on([one, other])
        cluster.converge(leader, [one, other])
