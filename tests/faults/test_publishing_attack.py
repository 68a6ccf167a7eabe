"""An attack on a cluster that takes prices: leaders die, freeze and stop, and Redis restarts.

Publishers send again what was not acknowledged. At the end all is as after one pass of the input.
"""

import random
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.faults.cluster import Cluster
from tests.faults.resenders import KEY, Resenders, batches_of, running
from tests.faults.test_publishing import SafeRedis, quote
from tests.processes import ServerProcess, eventually
from tests.publisher import post

VARIABLES = {"FEED": f"push+stream:{KEY}", "BUS_LEASE": "1s", "BUS_STALE_AFTER": "1s"}

FAULTS = ["dies", "freezes", "stops", "redis", "dies", "redis"]

BATCHES = 15
"""Batches of each fault: a third before it, the others while it lasts."""

COLD = ["MMM", "AOS", "ABT", "ABBV", "ACN", "ADBE", "AES", "AFL", "A", "ABNB", "AKAM", "ALB"]
"""Symbols of the catalogue that instances have to look up."""


class Attack:
    """Two instances and their Redis."""

    def __init__(self, cluster: Cluster, redis: SafeRedis, resenders: Resenders) -> None:
        self._cluster, self._redis, self._resenders = cluster, redis, resenders
        self.leader = cluster.start()
        cluster.wait_for_leader([self.leader])
        self.follower = cluster.start()
        self._share()

    def suffer(self, fault: str) -> None:
        """Let a fault happen, and wait until an instance leads."""
        cluster = self._cluster
        if fault == "redis":
            self._redis.kill()
            self._redis.start()
            return
        # On a busy machine the other one may lead by now.
        leader = cluster.wait_for_leader([self.leader, self.follower])
        if leader is self.follower:
            self.leader, self.follower = leader, self.leader
        self._resenders.servers = [self.follower]
        if fault == "freezes":
            leader.process.send_signal(signal.SIGSTOP)
            cluster.wait_for_leader([self.follower])
            leader.process.send_signal(signal.SIGCONT)
            self.leader, self.follower = self.follower, leader
        else:
            leader.process.send_signal(signal.SIGKILL if fault == "dies" else signal.SIGTERM)
            cluster.wait_for_leader([self.follower])
            self.leader, self.follower = self.follower, cluster.start()
        self._share()

    def _share(self) -> None:
        self._resenders.servers = [self.leader, self.follower]


def one_pass(folder: Path, resenders: Resenders) -> dict[str, tuple[int, dict[str, Any]]]:
    """Return the quotes of an instance that gets each object once."""
    folder.mkdir()
    with ServerProcess(folder, FEED="push") as server:
        for batch in resenders.batches:
            assert post(server, list(batch), Source=KEY).counts == (len(batch), 0, 0, 0, [])
        return {symbol: quote(server, symbol) for symbol in ("AAPL", *COLD)}


def attack(folder: Path, seed: int) -> None:
    """Let faults happen in an order that `seed` decides."""
    faults = random.Random(seed).sample(FAULTS, len(FAULTS))
    with SafeRedis() as redis, Cluster(folder, redis.url, **VARIABLES) as cluster:
        resenders = Resenders(batches_of(len(faults) * BATCHES, COLD), redis.port, seed)
        scene = Attack(cluster, redis, resenders)
        watchers = [cluster.watch(each, "AAPL") for each in (scene.leader, scene.follower)]
        with running(resenders):
            for number, fault in enumerate(faults):
                resenders.allow((number + 1) * BATCHES)
                resenders.wait_done(number * BATCHES + BATCHES // 3)
                scene.suffer(fault)
                resenders.wait_done((number + 1) * BATCHES)
            resenders.join()
        expected = one_pass(folder / "once", resenders)
        for server in (scene.leader, scene.follower):
            eventually(lambda: {s: quote(server, s) for s in expected} == expected)  # noqa: B023 (called here)
        for client in (*watchers, cluster.watch(scene.leader, "AAPL")):
            if client.server in cluster.running:
                client.wait_for(lambda it: it.document["quotes"]["AAPL"] == expected["AAPL"][1])


@pytest.mark.parametrize("seed", [1])
def test_everything_counts_once_whatever_fails(tmp_path, seed):
    """Exactly once by each way in, though each batch comes twice, and again after each failure."""
    attack(tmp_path, seed)


def test_each_leader_goes_on_in_the_stream_where_the_last_one_was(tmp_path, redis):
    """Entries without a number or id would count again: only their place in the stream tells."""
    entry = '{"symbol":"AAPL","price":90,"size":1}'

    def wait_for_volume(server: ServerProcess, expected: int) -> None:
        eventually(lambda: quote(server, "AAPL")[1].get("volume", 0) >= expected)

    with Cluster(tmp_path, redis.url, **VARIABLES) as cluster:
        server = cluster.start()
        for turn in (1, 2):
            cluster.wait_for_leader([server])
            for _ in range(3):
                redis.command("XADD", KEY, "*", "d", entry)
            wait_for_volume(server, 3 * turn)
            # It has followed nobody, so it knows only what Redis has.
            server.process.kill()
            server = cluster.start()
        cluster.wait_for_leader([server])
        redis.command("XADD", KEY, "*", "d", entry)
        wait_for_volume(server, 7)
        assert quote(server, "AAPL")[1]["volume"] == 7
