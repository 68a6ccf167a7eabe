"""What one instance does in the cluster: it leads, it follows, or it goes on alone.

Theory of operation. One task decides, so that nothing happens between a decision and what follows
from it. It follows until the lease is its own, then it leads until it is somebody else's:

    following ──elected──▶ leading      a lease in Redis, an epoch that only grows
        ▲  │                  │
        │  └──bus lost, BUS_OUTAGE=local──▶ alone, in an epoch of its own ──bus back──▶ following
        └── deposed, or handed over ──┘

What it does is the same wherever prices come from: they are moves of the leader's, or trades of its
own feed, and go through the topics.
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from random import uniform
from secrets import token_hex
from socket import gethostname
from time import time_ns
from typing import TYPE_CHECKING

import structlog
import trio

from server.cluster.context import ClusterContext
from server.cluster.errors import BusLost
from server.cluster.follower import BUS_LOST, HEARD_BATCHES, LEADER_LOST, Follower
from server.cluster.interest import Interest
from server.cluster.leader import Leader
from server.cluster.state import ClusterState, Policy
from server.cluster.stats import ClusterStats
from server.cluster.wire import Batch
from server.fanout.hub import Hub
from server.quotes.snapshot import Snapshot, live

if TYPE_CHECKING:
    from server.cluster.bus import Bus

LOCAL = "local"
"""The reason of `status` on an instance that goes on alone."""

ACQUIRE_JITTER = 0.05
"""Seconds after a lease's end within which others stand."""

Feed = Callable[[int], Awaitable[None]]

log = structlog.get_logger()


class Member:
    """One instance. `settled` is set once it leads, follows, or knows that it can do neither."""

    def __init__(self, hub: Hub, bus: "Bus", policy: Policy, stats: ClusterStats) -> None:
        self.hub = hub
        self.bus = bus
        self.stats = stats
        self.interest = Interest(hub, bus)
        self.settled = trio.Event()
        self.alone = False
        self._policy = policy
        self._state = ClusterState()
        self._send, batches = trio.open_memory_channel[Batch | None](HEARD_BATCHES)
        context = ClusterContext(hub, bus, policy, self._state, batches, stats)
        self._follower, self._leader = Follower(context), Leader(context)
        self._retired = False
        self._lost_at: float | None = None

    @property
    def leading(self) -> bool:
        """Whether this instance makes the prices of all."""
        return self._leader.leading

    @property
    def epoch(self) -> int:
        """The newest epoch that it followed or led."""
        return self._state.epoch

    @property
    def authoritative(self) -> bool:
        """Whether no other instance has newer prices: it leads, or nobody has led since it did."""
        return self._state.led == self._state.epoch

    async def run(
        self, feed: Feed, list_symbols: Callable[[Sequence[str]], Awaitable[object]]
    ) -> None:
        """Be a member until cancelled; a leader then gives its lease up.

        Arguments:
            feed: makes prices until cancelled, those after the last leader's newest (`Batch.position`)
                if it is a recording.
            list_symbols: has the store list symbols that others watch.
        """
        async with trio.open_nursery() as tasks:
            tasks.start_soon(self.bus.listen, self._send)
            tasks.start_soon(self.interest.run, lambda: self.leading, list_symbols)
            await self.bus.tried.wait()
            epoch = 0
            while True:
                epoch = epoch or await self._follow(feed)
                epoch = await self._leader.lead(epoch, feed, self._on_leading)
                self._follower.begin(acquire_at=trio.current_time() + self._policy.lease)

    def hand_over(self) -> None:
        """Have somebody else lead, and do not stand for one lease."""
        self._leader.giving_up = True
        self.hub.journal.wake()

    def retire(self) -> None:
        """Have somebody else lead, and never stand again."""
        self._retired = True
        self.hand_over()

    def unready(self) -> list[str]:
        """Why clients should go to other instances, whose prices may be better."""
        if not self.settled.is_set():
            return ["not in the cluster yet"]
        status = self.hub.status.message
        if self.leading or status.status == "live" or status.reason not in (BUS_LOST, LEADER_LOST):
            return []
        return [f"prices are stale: {status.reason}"]

    async def agree(self, snapshots: Sequence[Snapshot]) -> None:
        """List symbols that were not in memory, in the state on which the cluster agrees."""
        now = time_ns() // 1000
        fresh = [live(each, now) for each in snapshots if each.symbol not in self.hub.topics]
        if self.bus.connection:
            try:
                fresh = await self.bus.claim(fresh)
            except BusLost:
                self._state.unclaimed = True
        else:
            self._state.unclaimed = True
        self.hub.adopt(fresh, listed=True)
        self.hub.relist(snapshots)  # the cluster may know older reference data than the catalogue

    async def forget(self, symbols: Sequence[str]) -> None:
        """Have no instance list symbols because the cluster knows them."""
        try:
            await self.bus.forget(symbols)
        except BusLost:
            pass  # each instance that was told of a delisting keeps it in mind

    def _on_leading(self) -> None:
        self._follower.report("")
        self.settled.set()

    async def _follow(self, feed: Feed) -> int:
        """Follow until the lease is this instance's; the epoch in which it leads."""
        while True:
            await self._follower.step()
            now = trio.current_time()
            if self.bus.connection:
                self._lost_at = None
                if self._may_acquire(now) and (epoch := await self._acquire_lease()):
                    return epoch
                if self._follower.in_sync:
                    self.settled.set()
            else:
                self.settled.set()
                self._lost_at = self._lost_at or now
                if self._policy.local and now - self._lost_at >= self._policy.stale_after:
                    await self._go_on_alone(feed)

    def _may_acquire(self, now: float) -> bool:
        wants = self._policy.candidate and not self._retired
        return wants and self._follower.in_sync and now >= self._follower.acquire_at

    async def _acquire_lease(self) -> int:
        """Stand for election; 0 if somebody else leads."""
        try:
            answer = await self.bus.acquire_lease(own=0, known=self._state.epoch)
        except BusLost:
            self._follower.acquire_at = trio.current_time() + self._policy.lease / 3
            return 0
        if answer.epoch:
            return answer.epoch
        # Where the leader does not renew its lease, the next try is right after its end.
        wait = min(self._policy.lease / 3, answer.taken_for)
        self._follower.acquire_at = trio.current_time() + wait + uniform(0, ACQUIRE_JITTER)
        return 0

    async def _go_on_alone(self, feed: Feed) -> None:
        """Make prices for this instance's own clients until the bus is back."""
        self.hub.discard_waiting()
        await trio.lowlevel.checkpoint()  # what a topic took just now is still of the old epoch
        epoch = f"{self._state.epoch}.{token_hex(4)}"
        self.hub.begin_epoch(epoch)
        self.hub.set_status("live", LOCAL)
        log.warning("going on alone", epoch=epoch, problem=self.bus.problem)
        self.alone = True
        try:
            async with trio.open_nursery() as alone:
                alone.start_soon(feed, self._state.position)
                while not self.bus.connection:
                    await self._follower.receive()
                alone.cancel_scope.cancel()
        finally:
            self.alone = False
            self.hub.discard_waiting()


@asynccontextmanager
async def open_member(url: str, hub: Hub, policy: Policy) -> AsyncIterator[Member | None]:
    """An instance of the cluster at `url`, within trio-asyncio's loop; None without a URL, and then
    neither redis nor trio-asyncio are imported. Errors: BadBusUrl.
    """
    if not url:
        yield None
        return
    from server.cluster.bus import open_bus

    stats = ClusterStats()
    identity = f"{gethostname()}:{os.getpid()}:{token_hex(4)}"
    async with open_bus(url, identity, policy, stats) as bus:
        yield Member(hub, bus, policy, stats)
