"""Publishing in a cluster, with a real Redis: each instance takes prices, the leader publishes them."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any, NamedTuple

import pytest

from bench.services import Redis
from tests.faults.cluster import Cluster
from tests.gateway.wire import Client
from tests.processes import ServerProcess, eventually, make_token
from tests.publisher import post, publisher_token, publishing, receive

NUMBERS = count(1)
KEY = "ticks"


class Pair(NamedTuple):
    """Two instances, of which the first leads, and their Redis."""

    leader: ServerProcess
    follower: ServerProcess
    redis: Redis


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Start them once. Each test has a symbol of its own."""
    with (
        Redis() as redis,
        Cluster(
            tmp_path_factory.mktemp("pair"),
            redis.url,
            FEED=f"push+stream:{KEY}",
            PUSH_LISTS_SYMBOLS="1",
        ) as cluster,
    ):
        leader = cluster.start()
        cluster.wait_for_leader([leader])
        yield Pair(leader, cluster.start(), redis)


@pytest.fixture
def symbol() -> str:
    """Return a symbol that no other test uses."""
    return f"PUB{next(NUMBERS)}"


def quote(server: ServerProcess, symbol: str) -> tuple[int, dict[str, Any]]:
    """Return version and quote of a symbol, nothing of one that is not there."""
    _, found = server.ask(f"/quotes?symbols={symbol}")
    return (found[0]["version"], found[0]["quote"]) if found else (0, {})


def volume(server: ServerProcess, symbol: str) -> float:
    """Return the volume of a symbol."""
    return float(quote(server, symbol)[1].get("volume", 0))


def test_each_instance_takes_prices(pair: Pair, symbol: str) -> None:
    """The leader answers when they are published, a follower when they are in the queue. The clients
    of both get the same.
    """
    first = post(pair.leader, {"symbol": symbol, "price": 100, "size": 1, "seq": 1})
    assert (first.status, first.body["state"]) == (200, "applied")
    assert volume(pair.leader, symbol) == 1
    second = post(pair.follower, [{"symbol": symbol, "price": 101, "size": 2, "seq": 2}])
    assert (second.status, second.body["state"], second.body["accepted"]) == (200, "queued", 1)
    eventually(lambda: volume(pair.follower, symbol) == 3)
    for server in (pair.leader, pair.follower):
        assert quote(server, symbol)[0] == 3
        assert quote(server, symbol)[1]["current_price"] == 101
    again = post(pair.leader, {"symbol": symbol, "price": 101, "size": 2, "seq": 2})
    assert again.counts[:2] == (0, 1)


def test_id_counts_once_on_both(pair: Pair, symbol: str) -> None:
    """Also if it has no number, and comes over the other instance and the other way."""
    trade = {"symbol": symbol, "price": 50, "size": 1, "id": "t-1"}
    assert post(pair.follower, trade).body["state"] == "queued"
    eventually(lambda: volume(pair.leader, symbol) == 1)
    assert post(pair.leader, trade).counts[:2] == (0, 1)
    with publishing(pair.follower) as publisher:
        publisher.send(json.dumps(trade))
        assert receive(publisher)["state"] == "queued"
    pair.redis.command("XADD", KEY, "*", "d", json.dumps(trade))
    other = {"symbol": symbol, "price": 51, "size": 10}
    pair.redis.command("XADD", KEY, "*", "d", json.dumps(other))
    eventually(lambda: volume(pair.follower, symbol) == 11)


def test_key_counts_once_on_both(pair: Pair, symbol: str) -> None:
    """A batch whose key another instance has taken is not counted again, and gets the same answer."""
    batch = [{"symbol": symbol, "price": 50, "size": 1}]
    first = post(pair.follower, batch, Idempotency_Key=f"key {symbol}")
    eventually(lambda: volume(pair.leader, symbol) == 1)
    assert post(pair.leader, batch, Idempotency_Key=f"key {symbol}").body == first.body
    first = post(pair.leader, batch, Idempotency_Key=f"other {symbol}")
    assert first.counts[0] == 1
    assert post(pair.follower, batch, Idempotency_Key=f"other {symbol}").body == first.body
    post(pair.leader, {"symbol": symbol, "price": 51, "size": 10})
    assert volume(pair.leader, symbol) == 12


def test_follower_names_the_mistakes_it_can_see(pair: Pair, symbol: str) -> None:
    """By line. The good lines count all the same."""
    body = (
        b'nonsense\n{"symbol":"%s","price":10,"size":1}\n\n{"symbol":"%s","price":-1}\n'
        b'{"symbol":"%s","price":1,"ts":1795575704}\n{"symbol":"OTHER","price":1}\n'
        % ((symbol.encode(),) * 3)
    )
    post(pair.leader, {"symbol": symbol, "price": 10})
    answer = post(pair.follower, body, publisher_token(symbols=["PUB*"]))
    assert answer.body["accepted"] == 1
    codes = {each["line"]: each["code"] for each in answer.body["rejected"]}
    assert codes == {1: "bad_json", 4: "bad_price", 5: "bad_time", 6: "not_allowed"}
    eventually(lambda: volume(pair.follower, symbol) == 1)


def test_leader_names_lines_of_a_whole_batch(pair: Pair, symbol: str) -> None:
    """Also if the batch was many entries of the queue."""
    objects: list[dict[str, Any]] = [
        {"symbol": symbol, "price": 10, "size": 1, "seq": seq} for seq in range(1200)
    ]
    objects[1100] = {"kind": "cancel", "symbol": symbol, "id": "never came"}
    answer = post(pair.leader, objects)
    assert answer.counts == (1199, 0, 0, 0, ["unknown_trade"])
    assert answer.body["rejected"][0]["line"] == 1101
    eventually(lambda: volume(pair.follower, symbol) == 1199)
    assert quote(pair.follower, symbol)[0] == quote(pair.leader, symbol)[0]


def test_halt_reaches_clients_of_both(pair: Pair, symbol: str) -> None:
    """Behind the prices before it, and in front of those behind it; later clients get it, too."""
    post(pair.leader, {"symbol": symbol, "price": 10})
    eventually(lambda: quote(pair.follower, symbol)[0] > 0)
    batch: list[dict[str, Any]] = [
        {"symbol": symbol, "price": 11},
        {"kind": "status", "symbol": symbol, "status": "halted", "reason": "LUDP"},
        {"symbol": symbol, "price": 12},
    ]
    with Client(pair.leader, symbol) as one, Client(pair.follower, symbol) as other:
        post(pair.follower, batch)
        for client in (one, other):
            seen: list[Any] = []
            while seen[-1:] != [12]:
                message = client.receive()
                if message["type"] == "status":
                    seen.append((message["status"], message["reason"]))
                elif message["type"] == "quotes_patch":
                    seen.append(client.quotes[symbol]["current_price"])
            assert seen[-3:] == [11, ("halted", "LUDP"), 12]
    with Client(pair.follower, symbol) as late:
        while late.receive().get("status") != "halted":
            pass


def test_halt_of_a_symbol_that_a_follower_does_not_know_is_told(pair: Pair, symbol: str) -> None:
    """It has no price yet, and nobody has asked the follower for it before."""
    batch: list[dict[str, Any]] = [
        {"kind": "status", "symbol": "AMD", "status": "halted", "reason": "news"},
        {"symbol": symbol, "price": 10},
    ]
    assert post(pair.leader, batch).counts[0] == 2
    eventually(lambda: quote(pair.follower, symbol)[0] > 0)
    for server in (pair.follower, pair.leader):
        with Client(server, "AMD") as client:
            while (message := client.receive()).get("status") != "halted":
                pass
            assert (message["symbols"], message["reason"]) == (["AMD"], "news")


def test_stream_that_begins_anew_is_read_from_its_beginning(pair: Pair, symbol: str) -> None:
    """Its entries may have lower names: by hand, or by the clock of another Redis. Entries that a
    program trims or deletes are not read again.
    """

    def add(name: str, size: int) -> None:
        trade = {"symbol": symbol, "price": 7, "size": size}
        pair.redis.command("XADD", KEY, name, "d", json.dumps(trade))

    add("*", 1)
    eventually(lambda: volume(pair.leader, symbol) == 1)
    pair.redis.command("DEL", KEY)
    add("5-1", 10)
    eventually(lambda: volume(pair.leader, symbol) == 11)
    add("5-2", 100)
    eventually(lambda: volume(pair.leader, symbol) == 111)
    pair.redis.command("XDEL", KEY, "5-2")
    add("5-3", 1000)
    eventually(lambda: volume(pair.leader, symbol) == 1111)
    pair.redis.command("XTRIM", KEY, "MAXLEN", "0")
    add("*", 10_000)
    eventually(lambda: volume(pair.leader, symbol) == 11_111)


def test_stream_of_objects(pair: Pair, symbol: str) -> None:
    """Each entry's object counts, and one that is not an object is counted and logged."""
    for text in ("nonsense", json.dumps({"symbol": symbol, "price": 7, "size": 3})):
        pair.redis.command("XADD", KEY, "*", "d", text)
    pair.redis.command("XADD", KEY, "*", "other", "field")
    pair.redis.command("XADD", KEY, "*", "d", json.dumps({"symbol": symbol, "price": 8, "size": 4}))
    eventually(lambda: volume(pair.follower, symbol) == 7)
    sample = f'market_data_published_total{{result="rejected",source="{KEY}"}}'
    assert pair.leader.metric(sample) == 2

    def is_logged() -> bool:
        """The log has at most one line a second."""
        pair.redis.command("XADD", KEY, "*", "d", "nonsense")
        lines = pair.leader.log_lines()
        return any(
            line["event"] == "published objects rejected" and line["source"] == KEY
            for line in lines
        )

    eventually(is_logged)


def test_key_that_is_not_a_stream_is_named_once(pair: Pair, symbol: str) -> None:
    """Publishers go on meanwhile, and the log does not grow with each attempt to read it."""
    pair.redis.command("DEL", KEY)
    pair.redis.command("SET", KEY, "not a stream")

    def events(name: str) -> list[dict[str, Any]]:
        return [line for line in pair.leader.log_lines() if line["event"] == name]

    eventually(lambda: any(each["key"] == KEY for each in events("invalid record left out")))
    for number in range(1, 7):
        post(pair.leader, {"symbol": symbol, "price": 5, "size": 1})
        assert volume(pair.leader, symbol) == number
    assert len([each for each in events("invalid record left out") if each["key"] == KEY]) == 1
    refused = [each["problem"] for each in events("the bus does not do what it is asked")]
    assert len(refused) == len(set(refused))
    pair.redis.command("DEL", KEY)
    good = {"symbol": symbol, "price": 5, "size": 1}
    pair.redis.command("XADD", KEY, "*", "d", json.dumps(good))
    eventually(lambda: volume(pair.leader, symbol) == 7)


def test_refused_trade_of_the_stream_lists_no_symbol(pair: Pair, symbol: str) -> None:
    """A symbol whose price no rule allows would be on this instance only: others refuse its quote."""
    wrong: list[dict[str, Any]] = [
        {"price": 1e300},
        {"price": -5},
        {"price": 1e-300},
        {"price": 5, "size": -1},
        {"price": 5, "ts": 1},
        {"price": 5, "ts": "2999-01-01T00:00:00Z"},
    ]
    names = [f"{symbol}.{number}" for number in range(len(wrong))]
    for name, each in zip(names, wrong, strict=True):
        pair.redis.command("XADD", KEY, "*", "d", json.dumps({"symbol": name, **each}))
    good = {"symbol": symbol, "price": 5, "size": 1}
    pair.redis.command("XADD", KEY, "*", "d", json.dumps(good))
    eventually(lambda: volume(pair.leader, symbol) == 1)
    assert [name for name in names if quote(pair.leader, name)[0]] == []


def test_key_that_is_still_in_work_gets_an_answer_as_the_first(pair: Pair, symbol: str) -> None:
    """Both instances get the same batch at the same moment. It counts once, and neither calls it a
    duplicate.
    """
    post(pair.leader, {"symbol": symbol, "price": 50, "size": 1})
    batch = [{"symbol": symbol, "price": 50, "size": 1}]
    with ThreadPoolExecutor(2) as pool:
        for number in range(40):
            key = f"both {symbol} {number}"
            both = [
                pool.submit(post, server, batch, Idempotency_Key=key)
                for server in (pair.leader, pair.follower)
            ]
            assert [each.result().counts[:2] for each in both] == [(1, 0)] * 2
    eventually(lambda: volume(pair.follower, symbol) == 41)
    assert volume(pair.leader, symbol) == 41


def test_keys_are_each_users_own(pair: Pair, symbol: str) -> None:
    """Another user's batch with the same key counts, whichever instance it comes to."""
    batch = [{"symbol": symbol, "price": 50, "size": 1}]
    other = make_token("another press", role="publisher")
    post(pair.leader, batch, Idempotency_Key=f"key {symbol}")
    assert post(pair.leader, batch, other, Idempotency_Key=f"key {symbol}").counts[0] == 1
    assert volume(pair.leader, symbol) == 2
