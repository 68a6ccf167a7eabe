"""A follower alone: a hub, a channel of batches and a bus without Redis."""

from collections.abc import Sequence
from contextlib import closing
from typing import cast

import pytest
import trio

from server.cluster.bus import Bus
from server.cluster.context import ClusterContext
from server.cluster.follower import BUS_BACK, BUS_LOST, OLD_BATCHES, WAITING_BATCHES, Follower
from server.cluster.state import ClusterState, Policy
from server.cluster.stats import ClusterStats
from server.cluster.steps import Steps
from server.cluster.wire import Batch, Mark, Stored
from server.fanout.broadcaster import give
from server.fanout.freshness import FEED_QUIET
from server.fanout.hub import Hub
from server.quotes.snapshot import LiveSnapshot
from server.quotes.update import Move
from tests.fanout.peer import START_US, Peer, instruments

LEASE = 3.0

POLICY = Policy(lease=LEASE, stale_after=3.0, candidate=True, local=False)


class Hash:
    """A bus that is connected and returns at once what Redis would hold."""

    identity = "this instance"

    def __init__(self, epoch: int, seq: int, version: int) -> None:
        self.connection: int | None = 1
        self.loads = 0
        self.put(epoch, seq, version)

    def put(self, epoch: int, seq: int, version: int) -> None:
        snapshot = LiveSnapshot(
            "AAPL",
            "AAPL",
            1,
            100.0 + version,
            100.0,
            version=version,
            quoted_at=START_US,
            ts=START_US,
        )
        self._stored = Stored(Mark(epoch, seq), {"AAPL": snapshot}, led=True)

    async def load(self) -> Stored:
        self.loads += 1
        return self._stored

    async def claim(self, snapshots: Sequence[LiveSnapshot]) -> list[LiveSnapshot]:
        return list(snapshots)


class Harness:
    """A follower that has read the hash of epoch 7 up to batch 5, where AAPL has version 2."""

    def __init__(self) -> None:
        self.bus = Hash(epoch=7, seq=5, version=2)
        self.hub = Hub(instruments("AAPL"))
        self.stats = ClusterStats()
        self.send, batches = trio.open_memory_channel[Batch | None](WAITING_BATCHES)
        context = ClusterContext(
            hub=self.hub,
            bus=cast("Bus", self.bus),
            policy=POLICY,
            state=ClusterState(),
            batches=batches,
            steps=Steps(self.hub.journal.wake),
            stats=self.stats,
        )
        self.follower = Follower(context)

    async def receive(self, seq: int, version: int | None = None) -> None:
        """Receive a batch of the epoch, with a move of AAPL to `version` if there is one."""
        moves = [] if version is None else [move(version)]
        self.send.send_nowait(Batch(7, seq, moves))
        await self.follower.receive()

    @property
    def status(self) -> tuple[str, str]:
        message = self.hub.status.message
        return message.status, message.reason


def move(version: int) -> Move:
    return Move("AAPL", version, 100.0 + version, 1, START_US, START_US + version)


@pytest.fixture
async def harness(autojump_clock):
    harness = Harness()
    await harness.follower.step()
    assert harness.follower.in_sync
    return harness


async def test_one_missing_batch_is_a_gap(harness, autojump_clock):
    """At once, also just after the hash was read. Its moves are not taken; the hash is read again."""
    await harness.receive(7, version=4)
    assert not harness.follower.in_sync
    assert harness.stats.gaps == 1
    harness.bus.put(epoch=7, seq=7, version=4)
    await harness.follower.step()
    assert harness.bus.loads == 2
    assert harness.hub.topics["AAPL"].version == 4
    await harness.receive(8)
    assert harness.follower.in_sync


async def test_next_batch_is_no_gap_and_an_old_one_only_for_a_moment(harness, autojump_clock):
    """A batch that the hash includes may come after it was read, but not for ever."""
    await harness.receive(6)
    await harness.receive(6)
    assert harness.follower.in_sync
    await trio.sleep(OLD_BATCHES + 0.1)
    await harness.receive(7)
    assert harness.follower.in_sync
    await harness.receive(7)
    assert not harness.follower.in_sync
    assert harness.stats.gaps == 1


async def test_instance_that_comes_back_leaves_the_lease_to_others(harness, autojump_clock):
    """The instance that led meanwhile has newer prices: it gets one lease to renew its own."""
    assert harness.follower.acquire_at <= trio.current_time()
    harness.bus.connection = None
    await harness.follower.step()
    assert harness.status == ("stale", BUS_LOST)
    harness.bus.connection = 2
    back_at = trio.current_time()
    await harness.follower.step()
    assert harness.follower.in_sync
    assert harness.status == ("live", BUS_BACK)
    assert harness.follower.acquire_at >= back_at + LEASE
    await harness.follower.step()
    assert harness.follower.acquire_at == back_at + LEASE


async def test_quiet_feed_stays_stale(harness, autojump_clock):
    """Only a trade ends `feed_quiet`; other reasons end with the leader's next batch."""
    harness.hub.set_status("stale", FEED_QUIET)
    await harness.follower.step()
    assert harness.status == ("stale", FEED_QUIET)
    harness.hub.set_status("stale", BUS_LOST)
    await harness.follower.step()
    assert harness.status == ("live", BUS_BACK)


async def test_state_of_another_epoch_is_taken_over_as_it_is(harness, autojump_clock):
    """Versions are lower, too."""
    harness.bus.put(epoch=7, seq=6, version=4)
    await harness.receive(7)
    await harness.follower.step()
    assert harness.hub.topics["AAPL"].version == 4
    harness.bus.put(epoch=8, seq=1, version=3)
    harness.bus.connection = 2
    await harness.follower.step()
    topic = harness.hub.topics["AAPL"]
    assert (topic.version, topic.epoch, topic.quote.current_price) == (3, "8", 103.0)


async def test_moves_of_the_old_epoch_do_not_reach_the_new_one(nursery):
    """A move that waits for its topic is dropped when the hash is read: its version may be higher."""
    harness = Harness()
    await nursery.start(harness.hub.run)
    with closing(Peer(harness.hub)) as peer:
        peer.subscribe("AAPL")
        topic = harness.hub.topics["AAPL"]
        assert give(harness.hub, topic, move(9)) is None
        await harness.follower.step()
        await peer.read()
        assert (topic.version, topic.epoch) == (2, "7")
        assert (peer.versions["AAPL"], peer.epochs["AAPL"]) == (2, "7")
        assert peer.document["quotes"]["AAPL"]["current_price"] == 102.0
    nursery.cancel_scope.cancel()
