"""Gives an instance's clients what the leader publishes, or tells them why prices are stale.

After a missed batch, a new connection or a leader's end, the follower always does the same. It reads
the hash, and drops versions that are not newer. So within an epoch versions only grow. It takes over
the state of another epoch as it is, and every client gets full quotes.
"""

import math
from random import uniform

import structlog
import trio

from server.cluster.context import ClusterContext
from server.cluster.errors import BusLost
from server.cluster.steps import ahead_of_hash, announce
from server.cluster.wire import Batch
from server.fanout.broadcaster import BATCH_TRADES, give
from server.fanout.freshness import FEED_QUIET

WAITING_BATCHES = 1024
"""Batches between the bus and the follower: four seconds' worth, longer than reading the hash takes.
The bus drops further ones, and the follower notices the gap.
"""

TICK = 0.1
"""Seconds between two looks at the clocks while nothing is received."""

OLD_BATCHES = 1.0
"""Seconds after reading the hash in which batches that the hash includes may still come. If one comes
later, the hash named a wrong number, and the follower reads it again.
"""

HANDOVER_JITTER = 0.05
"""Seconds over which instances spread their attempts when a leader has given its lease up."""

BUS_LOST, LEADER_LOST, BUS_BACK = "bus_lost", "leader_lost", "bus_back"
"""Reasons of `status`."""

log = structlog.get_logger()


class Follower:
    """One instance while it does not lead.

    `in_sync`: it has every published batch. `acquire_at`: the time from which it may ask for the lease.
    """

    def __init__(self, context: ClusterContext) -> None:
        self.in_sync = False
        self.acquire_at = 0.0
        self._hub, self._bus = context.hub, context.bus
        self._policy, self._state, self._stats = context.policy, context.state, context.stats
        self._batches, self._steps = context.batches, context.steps
        self._seq = 0
        self._connection: int | None = None
        self._returning = False
        self._received_at = -math.inf
        self._read_at = -math.inf
        self._leader_stale = ""

    def begin(self, acquire_at: float) -> None:
        """Follow from now on, after this instance led. Ask for the lease from `acquire_at` on."""
        self.in_sync, self.acquire_at = False, acquire_at
        self._received_at = trio.current_time()

    async def step(self) -> None:
        """Do whatever is due, then receive for a moment."""
        if not self._bus.connection:
            self.in_sync, self._returning = False, True
            self.report(BUS_LOST)
        elif not self.in_sync or self._state.unclaimed or self._bus.connection != self._connection:
            await self._synchronise()
        if self.in_sync:
            silence = trio.current_time() - self._received_at
            self.report(LEADER_LOST if silence > self._policy.stale_after else self._leader_stale)
        await self.receive()

    async def receive(self) -> None:
        """Give incoming batches to the topics, for some time."""
        batch = None
        with trio.move_on_after(TICK):
            batch = await self._batches.receive()
        for _ in range(WAITING_BATCHES):  # then the clocks are looked at again
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
        self._received_at = trio.current_time()
        self._leader_stale = batch.stale
        self._state.position = batch.position
        self._hub.bars.on_lap(batch.position.row)
        if batch.handover and batch.handover != self._bus.identity:
            self.acquire_at = self._received_at + uniform(0, HANDOVER_JITTER)
        if not self.in_sync:
            return
        if batch.epoch != self._state.epoch or batch.seq > self._seq + 1:
            self.in_sync = False
            self._stats.gaps += batch.epoch == self._state.epoch
        elif batch.seq == self._seq + 1:
            self._seq = batch.seq
            await self._route(batch)
        elif self._received_at > self._read_at + OLD_BATCHES:
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
        self._steps.absorb(batch.states, batch.positions, batch.markets)
        closes = batch.closing.to > self._hub.bars.minutes.closed_to
        if batch.markets or closes:
            # They come behind the prices before them.
            for event in self._hub.topic_tasks.cut():
                await event.wait()
        announce(self._hub, batch.markets)
        if closes:
            self._hub.bars.close(batch.closing.to)
            self._hub.bars.minutes.forget(batch.closing.whole_from)

    async def _synchronise(self) -> None:
        """Take over the hash's state. It includes all batches received before; later ones wait."""
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
        another = epoch != self._hub.epoch or self._state.abandoned
        self._state.abandoned = False
        self._steps.keep(() if another else ahead_of_hash(self._hub, stored.snapshots))
        self._hub.bars.follow(stored.closing, exactly=another)
        self._hub.adopt([*stored.snapshots.values(), *claimed], older=another)
        if stored.mark is not None:
            announce(self._hub, self._steps.replace_markets(stored.markets))
        if another:
            self._hub.begin_epoch(epoch)
            log.info("following", epoch=epoch, symbols=len(stored.snapshots))
        self._hub.bars.close(self._hub.bars.minutes.closed_to)
        if stored.mark is not None:
            self._state.epoch, self._seq = stored.mark.epoch, stored.mark.seq
        now = self._read_at = trio.current_time()
        if stored.led:
            self._received_at = max(self._received_at, now)
            if stored.mark is not None:
                self._state.position = stored.mark.position
        if self._returning:  # the instance that led until then has the newest prices
            self.acquire_at = max(self.acquire_at, now + self._policy.lease)
        self._returning = False
        self._connection, self.in_sync = connection, True
