"""Gives an instance's clients what the leader publishes, or tells them why that is not possible.

There is one answer to everything that may have been missed, a batch, a connection, a change of
leaders: read the hash, and drop what is not newer. Within an epoch that can only mean higher versions;
what is of another epoch is taken over as it is, and everybody gets full quotes.
"""

import math
from random import uniform

import structlog
import trio

from server.cluster.context import ClusterContext
from server.cluster.errors import BusLost
from server.cluster.wire import Batch
from server.fanout.broadcaster import BATCH_TRADES, give
from server.fanout.freshness import FEED_QUIET

HEARD_BATCHES = 1024
"""Batches between the bus and who reads them: four seconds' worth, in which the hash has been read.
More are dropped, which is a gap.
"""

TICK = 0.1
"""Seconds between two looks at the clocks while nothing is heard."""

OLD_BATCHES = 1.0
"""Seconds after the hash was read in which batches that are in it may still come. Later ones mean that
the hash told a wrong number, and it is read anew.
"""

HANDOVER_JITTER = 0.05
"""Seconds over which others stand when a leader has given its lease up."""

BUS_LOST, LEADER_LOST, BUS_BACK = "bus_lost", "leader_lost", "bus_back"
"""Reasons of `status`."""

log = structlog.get_logger()


class Follower:
    """One instance while it does not lead. `in_sync`: it has all that was published."""

    def __init__(self, context: ClusterContext) -> None:
        self.in_sync = False
        self.acquire_at = 0.0
        self._hub, self._bus, self._policy, self._state, self._batches, self._stats = context
        self._seq = 0
        self._connection = 0
        self._returning = False
        self._heard_at = -math.inf
        self._read_at = -math.inf
        self._leader_stale = ""

    def begin(self, acquire_at: float) -> None:
        """Follow from now on, and stand from `acquire_at` on: until now this instance led."""
        self.in_sync, self.acquire_at = False, acquire_at
        self._heard_at = trio.current_time()

    async def step(self) -> None:
        """Do whatever is to be done now, then hear for a moment what is published."""
        if not self._bus.connection:
            self.in_sync, self._returning = False, True
            self.report(BUS_LOST)
        elif not self.in_sync or self._state.unclaimed or self._bus.connection != self._connection:
            await self._synchronise()
        if self.in_sync:
            silence = trio.current_time() - self._heard_at
            self.report(LEADER_LOST if silence > self._policy.stale_after else self._leader_stale)
        await self.receive()

    async def receive(self) -> None:
        """Give what comes in to the topics, for some time."""
        batch = None
        with trio.move_on_after(TICK):
            batch = await self._batches.receive()
        for _ in range(HEARD_BATCHES):  # then the clocks are looked at again
            if batch is not None:
                await self._take(batch)
            try:
                batch = self._batches.receive_nowait()
            except trio.WouldBlock:
                return

    def report(self, problem: str) -> None:
        """Tell clients why prices are stale; '' if they are not."""
        status = self._hub.status.message
        if problem:
            self._hub.set_status("stale", problem)
        elif status.status == "stale" and status.reason != FEED_QUIET:
            self._hub.set_status("live", BUS_BACK)

    async def _take(self, batch: Batch) -> None:
        self._heard_at = trio.current_time()
        self._leader_stale = batch.stale
        self._state.position = batch.position or self._state.position
        if batch.handover and batch.handover != self._bus.identity:
            self.acquire_at = self._heard_at + uniform(0, HANDOVER_JITTER)
        if not self.in_sync:
            return
        if batch.epoch != self._state.epoch or batch.seq > self._seq + 1:
            self.in_sync = False
            self._stats.gaps += batch.epoch == self._state.epoch
        elif batch.seq == self._seq + 1:
            self._seq = batch.seq
            await self._route(batch)
        elif self._heard_at > self._read_at + OLD_BATCHES:
            self.in_sync = False
            self._stats.gaps += 1

    async def _route(self, batch: Batch) -> None:
        self._hub.adopt(batch.listed)
        topics = self._hub.topics
        for number, move in enumerate(batch.moves, 1):
            topic = topics.get(move.symbol)
            if topic is not None and (full := give(self._hub, topic, move)):
                full.conflate(move)
            if number % BATCH_TRADES == 0:
                await trio.lowlevel.checkpoint()

    async def _synchronise(self) -> None:
        """Be as the hash is. What was heard before it is read is in it; what comes meanwhile waits."""
        self._hub.discard_waiting()
        while True:
            try:
                self._batches.receive_nowait()
            except trio.WouldBlock:
                break
        connection, self._state.unclaimed = self._bus.connection, False
        try:
            stored = await self._bus.load()
            mine = [
                topic.live_snapshot()
                for symbol, topic in self._hub.topics.items()
                if symbol not in stored.snapshots
            ]
            claimed = await self._bus.claim(mine)
        except BusLost:
            self.in_sync = False
            self.report(BUS_LOST)
            return
        epoch = self._hub.epoch if stored.mark is None else str(stored.mark.epoch)
        another = epoch != self._hub.epoch
        self._hub.adopt([*stored.snapshots.values(), *claimed], older=another)
        if another:
            self._hub.begin_epoch(epoch)
            log.info("following", epoch=epoch, symbols=len(stored.snapshots))
        if stored.mark is not None:
            self._state.epoch, self._seq = stored.mark.epoch, stored.mark.seq
        now = self._read_at = trio.current_time()
        if stored.led:
            self._heard_at = max(self._heard_at, now)
        if self._returning:  # who led until then has the newest prices
            self.acquire_at = max(self.acquire_at, now + self._policy.lease)
        self._returning = False
        self._connection, self.in_sync = connection, True
