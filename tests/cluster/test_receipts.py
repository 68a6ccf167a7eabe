"""Redis forgets batches in its queue: publishers get an answer, and each object counts once."""

import json
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest
from redis import Redis as RedisClient

from server.cluster.queue import PriceStreams
from server.cluster.receipts import lost
from server.intake.names import id_hash
from server.intake.objects import Published
from server.intake.queued import Queued, encode_queued
from tests.cluster.buses import buses
from tests.faults.cluster import Cluster
from tests.faults.test_publishing import FAST_LEASE, trades, wait_for_volume
from tests.processes import ServerProcess, eventually
from tests.publisher import post, publishing, receive

QUEUE = "quotestream:prices"

NUL = chr(0)

TRADE = {"symbol": "AAPL", "price": 90, "size": 1}


def wait_until_it_judges(leader: ServerProcess) -> None:
    """Before that, its answer is `queued`, which a Redis that forgets does not keep."""
    eventually(lambda: post(leader, trades(0, 1), Source="sip").body.get("state") == "applied")


@pytest.mark.parametrize(
    ("waiting", "found", "whole", "expected"),
    [
        ("", "", True, ""),
        ("abc", "", True, "abc"),
        ("abc", "xbc", True, "a"),
        ("abc", "abcx", True, ""),
        # What is behind the entries that were read may still be there.
        ("abc", "xy", False, ""),
        ("abcd", "xcy", False, "ab"),
        ("abcd", "dab", False, "c"),
    ],
)
def test_forgotten_entries_are_found(waiting, found, whole, expected):
    """An entry is forgotten if it is not in the queue, or if one that came later is in front."""
    assert lost(waiting, [*found], whole=whole) == [*expected]


def test_queue_that_redis_forgets_is_judged_all_the_same(tmp_path, redis):
    """The publisher waits for its answer. Acknowledgements come in their order."""
    with Cluster(tmp_path, redis.url, **FAST_LEASE) as cluster:
        leader = cluster.start()
        cluster.wait_for_leader([leader])
        wait_until_it_judges(leader)
        with publishing(leader, source="sip") as publisher:
            # Each status is an entry of its own, and a step.
            halts = [{"kind": "status", "symbol": "AAPL", "status": "halted"}] * 400
            publisher.send(json.dumps([*halts, *trades(0, 5)]))
            eventually(lambda: int(redis.command("XLEN", QUEUE)) > 200)
            redis.command("DEL", QUEUE)
            publisher.send(json.dumps(trades(5, 5)))
            answers = [receive(publisher) for _ in range(2)]
        assert [(each["frames"], each["accepted"]) for each in answers] == [(1, 404), (2, 409)]
        assert {each["state"] for each in answers} == {"applied"}
        wait_for_volume(leader, 10)
        assert post(leader, trades(0, 10), Source="sip").counts[:2] == (0, 10)
        leader.await_event("Redis has forgotten batches, which count all the same")


def test_redis_that_restarts_empty_leaves_no_publisher_waiting(tmp_path, redis):
    """Batches are on their way all the time. Each gets its answer, and each trade counts once."""
    numbers = count()
    with Cluster(tmp_path, redis.url, **FAST_LEASE) as cluster:
        leader = cluster.start()
        cluster.wait_for_leader([leader])
        wait_until_it_judges(leader)
        with publishing(leader, source="sip") as publisher:
            for turn in range(40):
                if turn % 20 == 10:
                    redis.kill()
                    redis.start()
                publisher.send(json.dumps([*trades(next(numbers) * 50, 50)]))
            while receive(publisher)["frames"] < 40:
                pass
        wait_for_volume(leader, 2000)


async def test_first_answer_to_a_key_stays(redis):
    """Also if another instance has one, too. It is forgotten with the ids, after five minutes."""
    async with buses(redis) as opened:
        one, other = map(PriceStreams, opened)
        await one.remember_answer(-5, b"first")
        await other.remember_answer(-5, b"second")
        await other.remember_answer(5, b"another")
        assert await one.first_answer(-5) == b"first"
        assert await one.first_answer(5) == b"another"
        assert await one.first_answer(6) is None
    left = int(redis.command("PTTL", "quotestream:answer:-5"))
    assert 290_000 < left <= 300_000


def test_batch_that_another_instance_took_meanwhile_gets_its_first_answer(tmp_path, redis):
    """The other one remembers its answer while this one's batch is in the queue. So this publisher gets
    that answer, too, and not that all objects are duplicates.
    """
    name = f"{id_hash('', NUL.join(('press', 'b-17'))):x} 0"
    theirs = Queued("press", "", name, [Published("AAPL", price=90, size=1)])
    first = {"accepted": 1, "duplicate": 0, "late": 0, "held": 0, "rejected": [], "state": "queued"}
    with Cluster(tmp_path, redis.url, **FAST_LEASE) as cluster:
        leader = cluster.start()
        cluster.wait_for_leader([leader])
        follower = cluster.start()
        with RedisClient.from_url(redis.url) as client, ThreadPoolExecutor() as pool:
            client.xadd(QUEUE, {"b": encode_queued(theirs)})
            wait_for_volume(leader, 1)
            # Each is a step of its own, so what comes behind has to wait.
            halts = [{"kind": "status", "symbol": "AAPL", "status": "halted"}] * 120
            assert post(follower, halts).body["state"] == "queued"
            ours = pool.submit(post, leader, TRADE, Idempotency_Key="b-17")
            eventually(
                lambda: any(
                    name.encode() in each[b"b"] for _, each in client.xrevrange(QUEUE, count=1)
                )
            )
            client.set(f"quotestream:answer:{name.split(maxsplit=1)[0]}", json.dumps(first))
            assert ours.result().body == first
        wait_for_volume(leader, 1)
