"""A publisher's batch whose end nobody knows, and symbols that only another instance knows."""

import json
import signal
from typing import Any

import pytest

from bench.services import Postgres, Redis
from server.cluster.queue import QUEUED_ENTRIES
from server.cluster.wire import QUOTES
from tests.faults.cluster import Cluster
from tests.faults.proxy import Proxy
from tests.processes import ServerProcess, eventually
from tests.publisher import post, publishing, receive


def volume(server: ServerProcess, symbol: str) -> float:
    """Return the volume of a symbol, 0 of one that is not there."""
    _, found = server.ask(f"/quotes?symbols={symbol}")
    return float(found[0]["quote"]["volume"]) if found else 0.0


def test_batch_that_may_count_is_not_called_refused(tmp_path, redis: Redis):
    """Redis takes the batch, and its answer is lost: 429 would be a lie. It counts once if it comes
    again with the same key, the same numbers or the same ids.
    """
    with (
        Proxy(redis.port) as proxy,
        Cluster(tmp_path, f"redis://127.0.0.1:{proxy.port}/0", FEED="push") as cluster,
    ):
        leader = cluster.start()
        cluster.wait_for_leader([leader])
        follower = cluster.start()
        # Redis has to know the script. Otherwise the first answer is that it does not.
        assert post(leader, {"symbol": "AAPL", "price": 100}).status == 200
        for server, symbol in ((leader, "AAPL"), (follower, "MSFT")):
            for number, again in enumerate(({"Idempotency_Key": f"key {symbol}"}, {}), 1):
                mark = f"lost {symbol} {number}"
                batch = [{"symbol": symbol, "price": 100, "size": 1, "id": mark}]
                proxy.lose_answers(mark.encode())
                answer = post(server, batch, **again)
                proxy.lose_answers(b"")
                assert (answer.status, answer.code) == (503, "not_published_yet")
                assert "may count" in answer.body["error"]["message"]
                assert int(answer.headers["retry-after"]) >= 1
                eventually(lambda: volume(server, symbol) == number)  # noqa: B023 (called here)
                assert post(server, batch, **again).status == 200
                # The leader judges everything in the queue's order.
                quote = {"symbol": symbol, "kind": "quote", "bid": 99}
                assert post(leader, quote).body["state"] == "applied"
                assert volume(leader, symbol) == number


def test_connection_that_loses_an_answer_publishes_its_frames_once(tmp_path, redis: Redis):
    """A WebSocket needs no refusal: the server asks Redis again until it has the frame."""
    with (
        Proxy(redis.port) as proxy,
        Cluster(tmp_path, f"redis://127.0.0.1:{proxy.port}/0", FEED="push") as cluster,
    ):
        leader = cluster.start()
        cluster.wait_for_leader([leader])
        assert post(leader, {"symbol": "AAPL", "price": 100}).status == 200
        with publishing(leader) as publisher:
            proxy.lose_answers(b"lost frame")
            publisher.send('{"symbol":"AAPL","price":100,"size":1,"id":"lost frame"}')
            eventually(lambda: volume(leader, "AAPL") == 1)
            proxy.lose_answers(b"")
            assert receive(publisher)["frames"] == 1
            publisher.send('{"symbol":"AAPL","price":101,"size":10}')
            assert receive(publisher)["frames"] == 2
        assert volume(leader, "AAPL") == 11


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"kind": "quote"}, "bad_price"),
        ({"kind": "quote", "bid_size": 5}, "bad_price"),
        ({"kind": "quote", "bid": -1}, "bad_price"),
        ({"kind": "quote", "bid": 5, "ask": 0}, "bad_price"),
        ({"kind": "quote", "ask": 1e14}, "bad_price"),
        ({"kind": "quote", "bid": 5, "bid_size": 0.5}, "bad_size"),
        ({"kind": "quote", "bid": 5, "ask_size": -1}, "bad_size"),
        ({"kind": "status"}, "bad_json"),
        ({"kind": "cancel"}, "bad_json"),
        ({"kind": "correct", "price": 5}, "bad_json"),
        ({"kind": "correct", "id": "t", "price": -5}, "bad_price"),
        ({"kind": "correct", "id": "t", "size": 0.5}, "bad_size"),
        ({"price": 5, "size": 0.5}, "bad_size"),
        ({"price": None}, "bad_price"),
        ({"price": 5, "symbol": "NEW", "size": -1}, "bad_size"),
        ({"price": -5, "symbol": "NEW"}, "bad_price"),
        ({"kind": "quote", "symbol": "NEW", "bid": 1, "bid_size": 10**30}, "bad_size"),
        ({"kind": "quote", "bid": 1, "bid_size": 10**30}, "bad_size"),
        ({"kind": "correct", "id": "t", "size": 10**30}, "bad_size"),
        ({"kind": "status", "symbol": "NEW"}, "bad_json"),
        ({"kind": "cancel", "symbol": "NEW"}, "bad_json"),
    ],
)
def test_follower_names_each_mistake_that_it_can_see(pair, given: dict[str, Any], code: str):
    """Of objects of every kind, as the leader does. `queued` would hide them from the publisher."""
    good = {"symbol": "AAPL", "price": 175.92}
    batch = [good, {"symbol": "AAPL"} | given, good]
    for server in pair:
        answer = post(server, batch)
        assert answer.counts == (2, 0, 0, 0, [code])
        assert answer.body["rejected"][0]["line"] == 2


@pytest.mark.parametrize(
    "given",
    [
        {"price": 175.92, "bid_size": 10**30},
        {"price": 175.92, "ask_size": -(10**30)},
        {"kind": "quote", "bid": 175.92, "size": 2**64},
        {"kind": "status", "status": "open", "size": 10**30, "bid_size": 10**30},
        {"kind": "cancel", "id": "t", "size": 10**30},
    ],
)
def test_field_that_a_kind_does_not_have_is_ignored(pair, given: dict[str, Any]):
    """Whatever number it holds: it costs neither its own object nor the batch."""
    good = {"symbol": "AAPL", "price": 175.92, "id": "t"}
    for server in pair:
        answer = post(server, [good, {"symbol": "AAPL"} | given, good])
        assert (answer.status, answer.body["rejected"]) == (200, [])


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory):
    """Start two instances, of which the first leads."""
    with (
        Redis() as redis,
        Cluster(
            tmp_path_factory.mktemp("pair"), redis.url, FEED="push", PUSH_LISTS_SYMBOLS="1"
        ) as cluster,
    ):
        leader = cluster.start()
        cluster.wait_for_leader([leader])
        yield leader, cluster.start()


@pytest.mark.parametrize("by_socket", [False, True])
def test_batch_with_more_statuses_than_the_queue_has_entries_is_taken(pair, by_socket: bool):
    """A market closes at once for all of its symbols. Asked again, the publisher would never get in."""
    _, follower = pair
    symbol = f"MANY{by_socket}"
    status = {"kind": "status", "symbol": "AAPL"}
    statuses: list[dict[str, Any]] = [
        status | {"status": ("halted", "open")[n % 2]} for n in range(QUEUED_ENTRIES + 1)
    ]
    batch: list[dict[str, Any]] = [*statuses, {"symbol": symbol, "price": 10, "size": 5}]
    if by_socket:
        with publishing(follower) as publisher:
            publisher.send(json.dumps(batch))
            assert receive(publisher)["accepted"] == len(batch)
    else:
        assert post(follower, batch).counts[0] == len(batch)
    eventually(lambda: volume(follower, symbol) == 5, 60)


def test_leader_without_its_store_takes_what_the_cluster_knows(
    tmp_path, redis: Redis, postgres: Postgres
):
    """A follower that knows the symbol has answered `queued`, so the leader may not refuse it."""
    with Cluster(tmp_path, redis.url, FEED="push") as cluster:
        leader = cluster.start(DATABASE_URL=postgres.url())
        cluster.wait_for_leader([leader])
        follower = cluster.start()
        assert post(follower, {"symbol": "TSLA", "price": 250, "size": 5}).counts[0] == 1
        eventually(lambda: volume(leader, "TSLA") == 5)
        # As an instance writes it that lists a symbol.
        state = redis.command("HGET", QUOTES, "TSLA").replace("TSLA", "KNOWN")
        redis.command("HSET", QUOTES, "KNOWN", state)
        postgres.kill()
        batch = [{"symbol": symbol, "price": 251, "size": 1} for symbol in ("KNOWN", "NOPE")]
        assert post(leader, batch).counts == (1, 0, 0, 0, ["store_unavailable"])
        assert volume(leader, "KNOWN") == 6
        eventually(lambda: volume(follower, "KNOWN") == 6)


def test_instance_that_leads_no_more_tells_of_no_source(tmp_path, redis: Redis):
    """The next leader has its sources and held trades. Two instances would tell of the same trades."""
    with Cluster(tmp_path, redis.url, FEED="push", PRICE_BAND="10%") as cluster:
        first = cluster.start()
        cluster.wait_for_leader([first])
        second = cluster.start()
        trades = [{"symbol": "AAPL", "price": price, "seq": price} for price in (140, 500)]
        assert post(first, trades).counts[3] == 1
        first.process.send_signal(signal.SIGSTOP)
        cluster.wait_for_leader([second])
        first.process.send_signal(signal.SIGCONT)
        cluster.wait_for_leader([first, second])
        assert not cluster.leads(first)
        for server, held in ((first, 0), (second, 1)):
            eventually(lambda: server.metric("market_data_held_trades") == held)  # noqa: B023 (called here)
        _, report = first.ask("/health")
        assert report["publishing"] == {"held": 0, "dropped": 0, "sources": {}}
        assert post(first, trades).body["state"] == "queued"
