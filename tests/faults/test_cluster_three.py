"""Three instances with a dozen clients each, while leaders and Redis die, freeze and come back.

After each fault there is one leader, every client has its state, and no client was closed. Each
message is checked: versions do not go back within an epoch, and are the same quote everywhere.
"""

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from bench.schedule import symbol_names
from bench.services import Redis
from tests.faults.cluster import FREEZE, LEASE, Cluster, report
from tests.processes import ServerProcess, eventually
from tests.stopwatch import Stopwatch

CLIENTS = 12
"""Clients of each instance, each with eight of forty symbols."""

SYMBOLS, EACH = 40, 8

PACE = {"PRICE_UPDATE_INTERVAL": "250ms"}
"""A symbol's moves: the clients together check a thousand messages a second, which leaves most of a
busy core to the instances.
"""

FAULTS = 6
"""Steps of a random course."""


class Three(Cluster):
    """The running instances, and the checks once a fault is over."""

    @property
    def leader(self) -> ServerProcess:
        """The leader, once there is exactly one."""
        return self.wait_for_leader(self.running)

    @property
    def followers(self) -> list[ServerProcess]:
        """The instances that follow."""
        leader = self.leader
        return [server for server in self.running if server is not leader]

    def join(self) -> ServerProcess:
        """Start one more instance, with its clients."""
        server = self.start()
        names = symbol_names(SYMBOLS)
        for number in range(CLIENTS):
            self.watch(server, ",".join(Random(number).sample(names, EACH)))
        return server

    def kill(self, server: ServerProcess) -> None:
        """Kill an instance, as a crash does. Its clients are cut off, the others are not."""
        for watcher in self.watchers:
            if watcher.server is server:
                watcher.over = True
        self.watchers = [each for each in self.watchers if each.server is not server]
        server.process.kill()
        server.process.wait()

    def settle(self, what: str) -> None:
        """Wait until every client is served and has the leader's state, and print how long that
        took.
        """
        start = time.monotonic()
        leader = self.leader
        self.converge(leader, self.watchers)
        report(what, time.monotonic() - start)
        self.moves_on(self.watchers)
        # Right after a fault another one may yet be elected.
        eventually(lambda: len({each for it in self.watchers for each in it.epochs}) == 1)
        eventually(lambda: all(server.get("/readyz")[0] == 200 for server in self.running))


@pytest.fixture
def three(tmp_path: Path, redis: Redis) -> Iterator[Three]:
    """Start three instances with converged clients. In the end no log may hold an error."""
    with Three(tmp_path, redis.url, **PACE) as cluster:
        for _ in range(3):
            cluster.join()
        cluster.settle("started")
        yield cluster
        for server in cluster.running:
            assert not [line for line in server.log_lines() if line["level"] == "error"]


def test_leaders_die_one_after_another(three):
    """Each time another instance leads in less than two leases. An instance that joins then follows."""
    for number in (1, 2, 3):
        three.kill(three.leader)
        watch = Stopwatch(*(server.process.pid for server in three.running))
        three.wait_for_leader(three.running)
        report(f"leader after death {number}", watch.seconds)
        assert watch.seconds < 2 * LEASE
        three.settle("all have its state")
        three.join()
        three.settle("another one has joined")


@pytest.mark.parametrize("whom", ["leader", "follower"])
def test_frozen_instance_comes_back(three, whom):
    """A thawed leader follows its successor. A thawed follower reads what it missed."""
    frozen = three.leader if whom == "leader" else three.followers[0]
    frozen.process.send_signal(signal.SIGSTOP)
    time.sleep(FREEZE)
    frozen.process.send_signal(signal.SIGCONT)
    eventually(lambda: frozen.metric("market_data_leader") == 0)
    three.settle(f"after a {whom} was frozen for {FREEZE:g} s")


def test_leader_dies_while_redis_is_away(three, redis):
    """Redis comes back empty, and the instance with the newest prices is gone. The others agree on
    theirs.
    """
    leader = three.leader
    redis.kill()
    three.kill(leader)
    for watcher in three.watchers:
        watcher.wait_for(lambda it: it.status == ("stale", "bus_lost"))
    redis.start()
    three.settle("after leader and Redis died")


def test_redis_dies_again_and_again(three, redis):
    """The instances converge, also when Redis goes again before all have found it."""
    leader = three.leader
    watch = Stopwatch(leader.process.pid)
    for seconds in (0.3, 1.0, 2.0):
        redis.kill()
        time.sleep(seconds)
        redis.start()
        time.sleep(seconds)
    three.settle("after three restarts of an empty Redis")
    assert three.still_leads(leader, watch)


@pytest.mark.parametrize("seed", [20261125])
def test_random_faults(three, redis, seed):
    """The instances converge after random faults, sometimes two at a time."""
    random = Random(seed)
    faults = {
        "the leader dies": lambda: three.kill(three.leader),
        "a follower dies": lambda: three.kill(random.choice(three.followers)),
        "the leader is sent away": lambda: _depose(three, three.leader),
        "an instance freezes": lambda: _freeze(random.choice(three.running), random.uniform(1, 6)),
        "Redis dies": lambda: _restart(redis, random.uniform(0.1, 4)),
        "Redis freezes": lambda: _pause(redis, random.uniform(0.5, 5)),
        "Redis forgets": lambda: redis.command("FLUSHALL"),
        "connections break": lambda: redis.command("CLIENT", "KILL", "TYPE", "pubsub"),
    }
    for _ in range(FAULTS):
        several = random.sample([*faults], random.choice((1, 1, 2)))
        for what in several:
            faults[what]()
        three.settle(", ".join(several))
        while len(three.running) < 3:
            three.join()


def _depose(three: Three, leader: ServerProcess) -> None:
    leader.process.send_signal(signal.SIGUSR1)
    eventually(lambda: not three.leads(leader))


def _freeze(server: ServerProcess, seconds: float) -> None:
    server.process.send_signal(signal.SIGSTOP)
    time.sleep(seconds)
    server.process.send_signal(signal.SIGCONT)


def _restart(redis: Redis, seconds: float) -> None:
    redis.kill()
    time.sleep(seconds)
    redis.start()


def _pause(redis: Redis, seconds: float) -> None:
    redis.freeze()
    time.sleep(seconds)
    redis.thaw()
