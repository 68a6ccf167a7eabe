"""Publishing in a cluster beside renames and delistings: what was counted goes on, or ends."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bench.services import Redis
from tests.cli.command import run
from tests.faults.cluster import Cluster
from tests.processes import ServerProcess, eventually
from tests.publisher import post
from tests.store.test_listing import list_instruments

NUMBERED = [{"price": 100 + n, "size": 1, "seq": n, "id": f"t-{n}"} for n in range(5)]


class Shared:
    """A cluster whose instances share a catalogue, and the commands on it."""

    def __init__(self, folder: Path, variables: dict[str, str], cluster: Cluster) -> None:
        self._folder = folder
        self._variables = variables
        self.cluster = cluster

    def done(self, *arguments: str) -> None:
        """Run a command that succeeds."""
        finished = run(self._folder, *arguments, **self._variables)
        assert finished.returncode == 0, finished.stderr

    def list(self, row: str) -> None:
        """Import one instrument."""
        list_instruments(self._folder, self._variables, row)


@pytest.fixture
def shared(tmp_path: Path, redis: Redis, database_url: str) -> Iterator[Shared]:
    variables = {"DATABASE_URL": database_url, "REDIS_URL": redis.url}
    list_instruments(tmp_path, variables, "FB,Facebook,STOCK,400,")
    with Cluster(tmp_path, redis.url, FEED="push", DATABASE_URL=database_url) as cluster:
        yield Shared(tmp_path, variables, cluster)


def volume(server: ServerProcess, symbol: str) -> float | None:
    """Return the volume of a symbol, None if it is not there."""
    _, found = server.ask(f"/quotes?symbols={symbol}")
    return float(found[0]["quote"]["volume"]) if found else None


def quote(server: ServerProcess, symbol: str) -> dict[str, Any]:
    """Return the quote of a symbol that is there."""
    _, found = server.ask(f"/quotes?symbols={symbol}")
    return dict(found[0]["quote"])


def is_renamed(server: ServerProcess) -> bool:
    """Whether a server has the volume under the new name only."""
    return volume(server, "META") == 5 and volume(server, "FB") is None


def publish(server: ServerProcess, symbol: str, objects: list[dict[str, Any]]) -> list[int]:
    """Publish, as soon as the server leads, and return the numbers of accepted and duplicates."""
    eventually(lambda: post(server, []).body.get("state") == "applied", 30)
    answer = post(server, [{"symbol": symbol} | each for each in objects])
    return [*answer.counts[:2]]


def test_renamed_symbol_counts_once(shared: Shared, redis: Redis) -> None:
    """Under both names, at the leader, at the next one, and at one that heard of nothing."""
    leader = shared.cluster.start()
    shared.cluster.wait_for_leader([leader])
    follower = shared.cluster.start()
    assert publish(leader, "FB", NUMBERED) == [5, 0]
    shared.done("rename", "FB", "META")
    for server in (leader, follower):
        eventually(partial(is_renamed, server))
    eventually(lambda: redis.command("HKEYS", "quotestream:intake").count("META") == 1)
    eventually(lambda: "FB" not in redis.command("HKEYS", "quotestream:intake"))
    for name in ("FB", "META"):
        assert publish(leader, name, NUMBERED) == [0, 5]
    more = [{"price": 300, "size": 1, "seq": 9}]
    assert publish(leader, "FB", more) == [1, 0]
    leader.process.kill()
    assert publish(follower, "META", NUMBERED + more) == [0, 6]
    follower.process.kill()
    third = shared.cluster.start()
    assert publish(third, "META", NUMBERED + more) == [0, 6]
    by_id = [{"price": 7, "size": 1, "id": "t-3"}]
    assert publish(third, "META", by_id) == [0, 1]
    assert volume(third, "META") == 6


def test_delisted_symbol_begins_anew(shared: Shared, redis: Redis) -> None:
    """In the running leader, too."""
    leader = shared.cluster.start()
    shared.cluster.wait_for_leader([leader])
    assert publish(leader, "FB", [{"price": 100, "size": 1, "seq": 5}]) == [1, 0]
    shared.done("delist", "FB")
    eventually(lambda: volume(leader, "FB") is None)
    eventually(lambda: "FB" not in redis.command("HKEYS", "quotestream:intake"))
    shared.list("FB,Another,STOCK,50,")
    eventually(lambda: volume(leader, "FB") is not None)
    assert publish(leader, "FB", [{"price": 50, "size": 1, "seq": 5}]) == [1, 0]


def test_split_while_no_instance_runs_leaves_the_next_trade_alone(shared: Shared) -> None:
    """Redis has the price of before the split. The first trade after the start is of after it."""
    first = shared.cluster.start()
    shared.cluster.wait_for_leader([first])
    assert publish(first, "FB", [{"price": 440, "size": 1}]) == [1, 0]
    first.stop()
    shared.done("split", "FB", "4:1")
    second = shared.cluster.start()
    assert publish(second, "FB", [{"price": 111, "size": 1}]) == [1, 0]
    eventually(lambda: quote(second, "FB")["base_price"] == 100)
    assert quote(second, "FB")["current_price"] == 111
    assert quote(second, "FB")["volume"] == 5


def test_trade_after_a_start_counts_for_the_new_owner_of_a_symbol(shared: Shared) -> None:
    """The symbol changed hands while no instance ran, and Redis has the quote of its former owner."""
    first = shared.cluster.start()
    shared.cluster.wait_for_leader([first])
    assert publish(first, "FB", [{"price": 440, "size": 1}]) == [1, 0]
    first.stop()
    shared.done("rename", "FB", "META")
    shared.list("FB,Another,STOCK,50,")
    second = shared.cluster.start()
    assert publish(second, "FB", [{"price": 51, "size": 1}]) == [1, 0]
    assert publish(second, "META", [{"price": 441, "size": 1}]) == [1, 0]
    eventually(lambda: volume(second, "META") == 2)
    assert quote(second, "FB")["current_price"] == 51
    assert volume(second, "FB") == 1


def test_key_of_the_first_batch_of_all_is_known(shared: Shared, redis: Redis) -> None:
    """Also if its answer is lost, and the batch comes again over another instance."""
    leader = shared.cluster.start()
    shared.cluster.wait_for_leader([leader])
    follower = shared.cluster.start()
    batch = [{"symbol": "FB", "price": 100, "size": 1}]
    assert post(leader, batch, Idempotency_Key="first").counts[0] == 1
    for name in redis.command("KEYS", "quotestream:answer:*").split():
        redis.command("DEL", name)
    assert post(follower, batch, Idempotency_Key="first").body["state"] == "queued"
    assert publish(leader, "FB", [{"price": 101, "size": 1}]) == [1, 0]
    assert volume(leader, "FB") == 2
