"""Publishing in a cluster while instances and Redis die: nothing is lost, and nothing counts twice."""

import json
import signal
import socket
import threading
import time
from http.client import HTTPException
from typing import Any

import msgspec
import pytest
from redis import Redis as RedisClient

from bench.services import Redis
from server.cluster.queue import QUEUED_ENTRIES
from tests.faults.cluster import LEASE, Cluster
from tests.processes import LONGEST_PAUSE, ServerProcess, eventually
from tests.publisher import post, publishing, receive

FAST_LEASE = {"FEED": "push", "PUSH_LISTS_SYMBOLS": "1"}


class SafeRedis(Redis):
    """A Redis that forgets nothing that it has answered."""

    persistence = ("--appendonly", "yes", "--appendfsync", "always")


def quote(server: ServerProcess, symbol: str) -> tuple[int, dict[str, Any]]:
    """Return version and quote of a symbol, nothing of one that is not there."""
    _, found = server.ask(f"/quotes?symbols={symbol}")
    return (found[0]["version"], found[0]["quote"]) if found else (0, {})


def volume(server: ServerProcess, symbol: str = "AAPL") -> float:
    """Return the volume of a symbol."""
    return float(quote(server, symbol)[1].get("volume", 0))


def wait_for_volume(server: ServerProcess, expected: float) -> None:
    """Wait until AAPL has traded that much. It must never have traded more."""
    eventually(lambda: volume(server) >= expected, 3 * LEASE)
    assert volume(server) == expected


def wait_for_desk(server: ServerProcess) -> None:
    """Wait until a server publishes what it takes. It is sent a trade that was counted before."""
    eventually(lambda: post(server, trades(0, 1)).body.get("state") == "applied", 5 * LEASE)


def trades(first: int, number: int, **fields: Any) -> list[dict[str, Any]]:
    """Return trades with sequence numbers, each at another price."""
    return [
        {"symbol": "AAPL", "price": 100 + seq / 100, "size": 1, "seq": seq, **fields}
        for seq in range(first, first + number)
    ]


def test_killed_leader_loses_and_repeats_nothing(tmp_path, redis):
    """The next leader goes on from the last written step, and knows what was counted."""
    with Cluster(tmp_path, redis.url, **FAST_LEASE) as cluster:
        leader = cluster.start()
        cluster.wait_for_leader([leader])
        follower = cluster.start()
        assert post(leader, trades(0, 100)).counts[0] == 100
        named = [{"symbol": "AAPL", "price": 99, "size": 1, "id": f"t-{n}"} for n in range(5)]
        assert post(leader, named).counts[0] == 5
        leader.process.send_signal(signal.SIGSTOP)
        # Nobody reads the queue now.
        assert post(follower, trades(50, 100)).body["state"] == "queued"
        assert post(follower, {"symbol": "AAPL", "price": 98, "size": 7}).body["state"] == "queued"
        assert volume(follower) == 105
        leader.process.kill()
        wait_for_desk(follower)
        eventually(lambda: volume(follower) == 162)
        assert post(follower, trades(0, 150)).counts[:2] == (0, 150)
        assert post(follower, named).counts[:2] == (0, 5)
        assert quote(follower, "AAPL")[0] == 1 + 156
        # An instance that followed nobody has it all from Redis.
        follower.process.kill()
        third = cluster.start()
        wait_for_desk(third)
        assert post(third, trades(0, 150)).counts[:2] == (0, 150)
        assert post(third, named).counts[:2] == (0, 5)
        assert volume(third) == 162


def test_next_leader_revises_what_the_last_one_kept(tmp_path, redis):
    """Price, volume, high and low are as they would have been, also at an instance that is new."""
    with Cluster(tmp_path, redis.url, **FAST_LEASE) as cluster:
        leader = cluster.start()
        cluster.wait_for_leader([leader])
        follower = cluster.start()
        named = [{"symbol": "AAPL", "price": 100 + n, "size": 1, "id": f"t-{n}"} for n in range(6)]
        assert post(leader, named).counts[0] == 6
        cancel = {"kind": "cancel", "symbol": "AAPL"}
        assert post(leader, cancel | {"id": "t-5"}).counts[0] == 1
        leader.process.kill()
        wait_for_desk(follower)
        assert post(follower, cancel | {"id": "t-5"}).counts[1] == 1
        assert post(follower, cancel | {"id": "t-0"}).counts[0] == 1
        assert quote(follower, "AAPL")[1]["high"] == 104
        follower.process.kill()
        third = cluster.start()
        wait_for_desk(third)
        correct = {"kind": "correct", "symbol": "AAPL", "id": "t-4", "price": 90, "size": 3}
        assert post(third, correct).counts[0] == 1
        _, last = quote(third, "AAPL")
        # A trade that came again and again to find the leader is kept, too.
        assert (last["current_price"], last["high"], last["low"]) == (100, 103, 90)
        assert last["volume"] == 1 + 3 + 3


def test_batches_of_a_dying_leader_count_once(tmp_path, redis):
    """A publisher that sends each batch until it gets an answer has each trade counted once, though
    leaders are killed in the middle of the work.
    """
    with Cluster(tmp_path, redis.url, **FAST_LEASE) as cluster:
        leader = cluster.start()
        cluster.wait_for_leader([leader])
        follower = cluster.start()
        for number in range(60):
            server = (leader, follower)[number % 2]
            if number in (20, 40):
                leader.process.kill()
                leader, follower = follower, cluster.start()
                server = leader
            deadline = time.monotonic() + 30
            while True:
                try:
                    if post(server, trades(number * 50, 50)).status == 200:
                        break
                except OSError:
                    pass
                assert time.monotonic() < deadline
        for server in (leader, follower):
            wait_for_volume(server, 3000)
            assert quote(server, "AAPL")[1]["current_price"] == 129.99
            assert quote(server, "AAPL")[0] == 3001


def test_lost_redis_takes_nothing(tmp_path, redis):
    """Each instance refuses prices while Redis is away, and takes them again when it is back, empty."""
    with Cluster(tmp_path, redis.url, **FAST_LEASE) as cluster:
        leader = cluster.start()
        cluster.wait_for_leader([leader])
        follower = cluster.start()
        assert post(leader, trades(0, 10)).counts[0] == 10
        redis.kill()
        for server in (leader, follower):
            # The first batch may be on its way while the connection breaks off, so that it may count.
            while (refused := post(server, trades(10, 10))).status != 429:
                assert refused.body["error"]["code"] == "not_published_yet"
            assert int(refused.headers["retry-after"]) >= 1
        redis.start()
        eventually(lambda: post(leader, trades(0, 20)).status == 200)
        for server in (leader, follower):
            wait_for_volume(server, 20)


@pytest.mark.parametrize("leader_dies", [False, True])
def test_redis_that_forgets_the_last_batches_is_told_again(tmp_path, redis, leader_dies):
    """The leader tells it, or a follower that heard of all of them."""
    with Cluster(tmp_path, redis.url, **FAST_LEASE) as cluster:
        leader = cluster.start()
        cluster.wait_for_leader([leader])
        follower = cluster.start()
        assert post(leader, trades(0, 100)).counts[0] == 100
        wait_for_volume(follower, 100)
        redis.command("SAVE")
        assert post(leader, {"symbol": "MSFT", "price": 9, "size": 5, "seq": 1}).counts[0] == 1
        assert post(leader, trades(100, 100)).counts[0] == 100
        wait_for_volume(follower, 200)
        redis.kill()
        if leader_dies:
            leader.process.kill()
        redis.start()
        left = follower if leader_dies else cluster.wait_for_leader([leader, follower])
        wait_for_desk(left)
        assert post(left, trades(50, 150)).counts[:2] == (0, 150)
        assert post(left, trades(0, 250)).counts[:2] == (50, 200)
        assert volume(left) == 250
        for server in cluster.running:
            server.process.kill()
        third = cluster.start()
        wait_for_desk(third)
        assert post(third, trades(0, 250)).counts[:2] == (0, 250)
        # Nobody sent this symbol again.
        assert volume(third, "MSFT") == 5
        assert post(third, {"symbol": "MSFT", "price": 9, "size": 5, "seq": 1}).counts[1] == 1
        assert volume(third) == 250


class Publishers:
    """Two publishers of one symbol: they share its numbers, and send every batch twice."""

    BATCHES, OBJECTS = 60, 20

    def __init__(self) -> None:
        self.sent = 0
        self.servers: list[ServerProcess] = []
        self.problems: list[BaseException] = []
        start = time.time_ns() // 1000 - 10_000_000
        self.batches = [
            [each | {"ts": start + each["seq"]} for each in trades(number * 20, self.OBJECTS)]
            for number in range(self.BATCHES)
        ]
        self._threads = [
            threading.Thread(target=self._publish, args=(numbers,), daemon=True)
            for numbers in (range(0, self.BATCHES, 2), range(1, self.BATCHES, 2))
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def wait_sent(self, number: int) -> None:
        eventually(lambda: self.sent >= number, 10 * LEASE)

    def join(self) -> None:
        for thread in self._threads:
            thread.join(10 * LEASE)
            assert not thread.is_alive()
        assert not self.problems

    def _publish(self, numbers: range) -> None:
        try:
            for number in numbers:
                for attempt in range(2):
                    self._send(self.batches[number], number + attempt)
                self.sent += 1
        except (Exception, pytest.fail.Exception) as problem:
            self.problems.append(problem)

    def _send(self, batch: list[dict[str, Any]], attempt: int) -> None:
        """Send a batch to one instance or another until it is taken."""
        deadline = time.monotonic() + 10 * LEASE
        while True:
            attempt += 1
            try:
                server = self.servers[attempt % len(self.servers)]
                if post(server, batch, Source="sip").status == 200:
                    return
            except (OSError, HTTPException, ValueError):
                time.sleep(LONGEST_PAUSE)
            assert time.monotonic() < deadline


def test_story_of_a_bad_day(tmp_path):
    """Two publishers, one of which dies; Redis restarts; the leader is killed; batches come twice. Then
    every client has exactly what one pass of the input gives.
    """
    publishers = Publishers()
    with SafeRedis() as redis, Cluster(tmp_path, redis.url, **FAST_LEASE) as cluster:
        leader = cluster.start()
        cluster.wait_for_leader([leader])
        follower = cluster.start()
        watcher = cluster.watch(follower, "AAPL")
        publishers.servers = [leader, follower]
        with publishing(follower, source="sip") as dying:
            for batch in publishers.batches[:10]:
                dying.send(json.dumps(batch))
            dying.socket.shutdown(socket.SHUT_RDWR)
        publishers.start()
        publishers.wait_sent(15)
        redis.kill()
        redis.start()
        publishers.wait_sent(30)
        leader.process.kill()
        publishers.servers = [follower, follower]
        cluster.wait_for_leader([follower])
        third = cluster.start()
        publishers.servers = [follower, third]
        late = cluster.watch(third, "AAPL")
        publishers.join()
        once = tmp_path / "once"
        once.mkdir()
        with ServerProcess(once, FEED="push", LOG_LEVEL="info") as reference:
            for batch in publishers.batches:
                assert post(reference, batch, Source="sip").counts[0] == publishers.OBJECTS
            expected = quote(reference, "AAPL")
        for server, client in ((follower, watcher), (third, late)):
            wait_for_volume(server, expected[1]["volume"])
            assert quote(server, "AAPL") == expected
            client.wait_for(lambda it: it.held["AAPL"][1] == expected[0])
            assert client.document["quotes"]["AAPL"] == expected[1]


def test_full_queue_takes_nothing(tmp_path, redis):
    """While nobody reads it, the queue has a limit. What it took counts later, nothing else does."""
    with Cluster(tmp_path, redis.url, **FAST_LEASE) as cluster:
        leader = cluster.start()
        cluster.wait_for_leader([leader])
        follower = cluster.start()
        assert post(leader, trades(0, 1)).counts[0] == 1
        wait_for_volume(follower, 1)
        leader.process.send_signal(signal.SIGSTOP)
        # Each status is an entry of its own.
        halts = [{"kind": "status", "symbol": "AAPL", "status": "halted"}] * (QUEUED_ENTRIES - 2)
        assert post(follower, halts).body["state"] == "queued"
        assert post(follower, trades(1, 1)).body["state"] == "queued"
        assert post(follower, trades(2, 1)).status == 429
        leader.process.kill()
        wait_for_desk(follower)
        wait_for_volume(follower, 2)
        assert post(follower, trades(2, 1)).counts[0] == 1
        wait_for_volume(follower, 3)


def test_acks_keep_their_order_while_the_leader_changes(tmp_path, redis):
    """A publisher on one connection gets an answer to each frame, whether its server leads or not."""
    with Cluster(tmp_path, redis.url, **FAST_LEASE) as cluster:
        leader = cluster.start()
        cluster.wait_for_leader([leader])
        follower = cluster.start()
        with publishing(follower, source="sip") as publisher:
            frames, total, states = 0, 0, set()
            for number in range(400):
                if number == 100:
                    leader.process.kill()
                if number == 200:
                    cluster.wait_for_leader([follower])
                publisher.send(json.dumps(trades(number, 1)) if number % 5 else "nonsense")
                if number % 20 == 19:
                    while frames <= number:
                        answer = receive(publisher)
                        assert answer["frames"] > frames
                        frames, total = answer["frames"], answer["accepted"]
                        states.add(answer["state"])
            assert (frames, total) == (400, 320)
            assert states == {"queued", "applied"}
        wait_for_volume(follower, 320)


@pytest.mark.parametrize("wrong_type", [False, True])
def test_wrong_values_in_redis_stop_nothing(tmp_path, redis, wrong_type):
    """Another program's values are left out, and keys of another type are renamed."""
    names = ("intake", "markets", "ids", "kept", "prices")
    if wrong_type:
        for name in names:
            redis.command("SET", f"quotestream:{name}", "garbage")
    else:
        for field in ("AAPL", "MSFT", "position:quotestream:prices", "position:"):
            redis.command("HSET", "quotestream:intake", field, "garbage")
        huge = msgspec.msgpack.encode([[["s", "", "IBM", -1, "0", [2**63, 0], [0, -1], 0]], []])
        with RedisClient.from_url(redis.url) as client:
            client.hset("quotestream:intake", "IBM", huge)
        redis.command("HSET", "quotestream:markets", "AAPL", '["AAPL","gone",1]')
        redis.command("XADD", "quotestream:ids", "*", "i", "eleven byte")
        redis.command("XADD", "quotestream:ids", "*", "other", "field")
        redis.command("XADD", "quotestream:kept", "*", "t", "garbage")
        redis.command("XADD", "quotestream:kept", "*", "other", "field")
        redis.command("XADD", "quotestream:prices", "*", "b", "garbage")
        redis.command("XADD", "quotestream:prices", "*", "other", "field")
    with Cluster(tmp_path, redis.url, **FAST_LEASE) as cluster:
        leader = cluster.start()
        cluster.wait_for_leader([leader])
        follower = cluster.start()
        assert post(leader, trades(0, 10)).counts[0] == 10
        assert post(follower, trades(10, 10)).body["state"] == "queued"
        for server in (leader, follower):
            wait_for_volume(server, 20)
        assert not [line for line in leader.log_lines() if line["level"] == "error"]


@pytest.mark.parametrize("fault", ["stops", "freezes"])
def test_step_that_a_leader_does_not_finish_counts_once(tmp_path, redis, fault):
    """The leader leaves in the middle of the work, or wakes up when another one leads. What its topics
    have of a step that Redis does not have is dropped.
    """
    publishers = Publishers()
    total = publishers.BATCHES * publishers.OBJECTS
    with Cluster(tmp_path, redis.url, **FAST_LEASE) as cluster:
        leader = cluster.start()
        cluster.wait_for_leader([leader])
        follower = cluster.start()
        publishers.servers = [leader, follower]
        publishers.start()
        publishers.wait_sent(10)
        if fault == "stops":
            leader.process.send_signal(signal.SIGTERM)
            cluster.wait_for_leader([follower])
            leader = cluster.start()
        else:
            leader.process.send_signal(signal.SIGSTOP)
            cluster.wait_for_leader([follower])
            leader.process.send_signal(signal.SIGCONT)
        publishers.servers = [leader, follower]
        publishers.join()
        for server in (leader, follower):
            wait_for_volume(server, total)
            assert quote(server, "AAPL")[0] == 1 + total
