"""One instance of the cluster: it leads, it follows, or it goes on alone.

Theory of operation: one task decides and acts, so no other event comes between a decision and its
effects. It follows until it gets the lease, then it leads until another instance leads:

    following ──elected──▶ leading      a lease in Redis, an epoch that only grows
        ▲  │                  │
        │  └──bus lost, BUS_OUTAGE=local──▶ alone, in an epoch of its own ──bus back──▶ following
        └── deposed, or handed over ──┘

Prices take the same path in each state: the leader's moves and this instance's own trades both go
through the topics.
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from random import uniform
from secrets import token_hex
from socket import gethostname
from time import time_ns

import structlog
import trio

from server.cluster.bus import Bus, open_bus
from server.cluster.context import ClusterContext
from server.cluster.errors import BusLost
from server.cluster.follower import BUS_LOST, LEADER_LOST, WAITING_BATCHES, Follower
from server.cluster.interest import Interest
from server.cluster.leader import Leader
from server.cluster.state import ClusterState, Policy
from server.cluster.stats import ClusterStats
from server.cluster.steps import Steps
from server.cluster.wire import Batch
from server.fanout.hub import Hub
from server.quotes.identity import same_instrument
from server.quotes.snapshot import LiveSnapshot, Snapshot, live
from server.quotes.update import FeedPosition

LOCAL = "local"
"""The reason of `status` on an instance that goes on alone."""

ACQUIRE_JITTER = 0.05
"""Seconds after a lease's end over which instances spread their attempts."""

Feed = Callable[[FeedPosition], Awaitable[None]]

log = structlog.get_logger()


class Member:
    """Owns the instance's state. `settled`: it leads, it follows, or it can do neither for now."""

    def __init__(self, hub: Hub, bus: Bus, policy: Policy, stats: ClusterStats) -> None:
        self.hub = hub
        self.bus = bus
        self.stats = stats
        self.interest = Interest(hub, bus)
        self.settled = trio.Event()
        self._policy = policy
        self._state = ClusterState()
        self._send, batches = trio.open_memory_channel[Batch | None](WAITING_BATCHES)
        self.steps = Steps(hub.journal.wake)
        hub.bars.own_clock = False
        context = ClusterContext(
            hub=hub,
            bus=bus,
            policy=policy,
            state=self._state,
            batches=batches,
            steps=self.steps,
            stats=stats,
        )
        self._follower, self._leader = Follower(context), Leader(context)
        self._retired = False
        self._lost_at: float | None = None

    @property
    def leading(self) -> bool:
        """Whether this instance makes the prices of all instances."""
        return self._leader.leading

    @property
    def epoch(self) -> int | None:
        """The newest epoch that it followed or led, None before the first."""
        return self._state.epoch

    @property
    def authoritative(self) -> bool:
        """Whether this instance has the newest prices: no other has led since it did."""
        return self._state.led is not None and self._state.led == self._state.epoch

    async def run(
        self, feed: Feed, list_symbols: Callable[[Sequence[str]], Awaitable[object]]
    ) -> None:
        """Be a member until cancelled. A leader then gives its lease up.

        Arguments:
            feed: makes prices until cancelled. A replay gets the last leader's position and goes on
                from there, without the rows that topics already include (`Topic.row`).
            list_symbols: makes the store list symbols that other instances watch.
        """
        async with trio.open_nursery() as tasks:
            tasks.start_soon(self.bus.listen, self._send)
            tasks.start_soon(self.interest.run, lambda: self.leading, list_symbols)
            await self.bus.tried.wait()
            epoch: int | None = None
            while True:
                if epoch is None:
                    epoch = await self._follow(feed)
                epoch = await self._leader.lead(epoch, feed, self._on_leading)
                self._follower.begin(acquire_at=trio.current_time() + self._policy.lease)

    def hand_over(self) -> None:
        """Let another instance lead, and do not ask for the lease again before one lease is over."""
        self._leader.giving_up = True
        self.hub.journal.wake()

    def retire(self) -> None:
        """Let another instance lead, and never ask for the lease again."""
        self._retired = True
        self.hand_over()

    def unready(self) -> list[str]:
        """Return the reasons to send clients to other instances, whose prices may be newer."""
        if not self.settled.is_set():
            return ["not in the cluster yet"]
        status = self.hub.status.message
        if self.leading or status.status == "live" or status.reason not in (BUS_LOST, LEADER_LOST):
            return []
        return [f"prices are stale: {status.reason}"]

    async def agree(self, snapshots: Sequence[Snapshot]) -> None:
        """List symbols that were not in memory, in the state that the whole cluster has."""
        now = time_ns() // 1000
        fresh = [live(each, now) for each in snapshots if each.symbol not in self.hub.topics]
        if self.bus.connection:
            try:
                states = {each.symbol: each for each in await self.bus.claim(fresh)}
                # The cluster's state may be of an instrument that has another symbol now.
                fresh = [_agreed(each, states.get(each.symbol)) for each in fresh]
            except BusLost:
                self._state.unclaimed = True
        else:
            self._state.unclaimed = True
        self.hub.adopt(fresh, listed=True)
        # The cluster may know older reference data than the catalogue.
        self.hub.relist(snapshots)

    async def list_known(self, symbols: Sequence[str]) -> None:
        """List those of `symbols` that another instance has listed, without asking the store."""
        if symbols and self.bus.connection:
            with suppress(BusLost):
                found = await self.bus.find(symbols)
                self.hub.adopt(each for each in found if each.symbol not in self.hub.topics)

    async def forget(self, symbols: Sequence[str]) -> None:
        """Remove symbols from the cluster's state, so that no instance lists them from there. The
        leader removes how far their sources have come, once it has written that of their new names.
        """
        self.steps.forget(symbols)
        try:
            await self.bus.forget(symbols)
        except BusLost:
            # Each instance that was told of a delisting remembers it.
            pass

    def _on_leading(self) -> None:
        self._follower.report("")
        self.settled.set()

    async def _follow(self, feed: Feed) -> int:
        """Follow until this instance gets the lease. Return the epoch to lead in."""
        while True:
            await self._follower.step()
            now = trio.current_time()
            if self.bus.connection:
                self._lost_at = None
                if self._may_acquire(now):
                    epoch = await self._acquire_lease()
                    if epoch is not None:
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

    async def _acquire_lease(self) -> int | None:
        """Ask for the lease. Return the epoch to lead in, or None if another instance leads."""
        try:
            answer = await self.bus.acquire_lease(own=None, known=self._state.epoch)
        except BusLost:
            self._follower.acquire_at = trio.current_time() + self._policy.lease / 3
            return None
        if answer.epoch is not None:
            return answer.epoch
        # If the leader does not renew its lease, the next attempt comes right after its end.
        wait = min(self._policy.lease / 3, answer.taken_for)
        self._follower.acquire_at = trio.current_time() + wait + uniform(0, ACQUIRE_JITTER)
        return None

    async def _go_on_alone(self, feed: Feed) -> None:
        """Make prices for this instance's own clients until the bus is back."""
        self.hub.discard_waiting()
        # Let topics publish what they just took: it is still of the old epoch.
        await trio.lowlevel.checkpoint()
        epoch = f"{self._state.epoch or 0}.{token_hex(4)}"
        self.hub.begin_epoch(epoch)
        self.hub.set_status("live", LOCAL)
        self.hub.bars.own_clock = True
        log.warning("going on alone", epoch=epoch, problem=self.bus.problem)
        try:
            async with trio.open_nursery() as alone:
                alone.start_soon(feed, self._state.position)
                while not self.bus.connection:
                    await self._follower.receive()
                alone.cancel_scope.cancel()
        finally:
            self.hub.bars.own_clock = False
            self.hub.discard_waiting()


def _agreed(row: LiveSnapshot, state: LiveSnapshot | None) -> LiveSnapshot:
    """Return the cluster's state of a symbol, or the catalogue's row of another instrument."""
    if state and same_instrument(row.symbol, row.adjustments, state.adjustments):
        return state
    return row


@asynccontextmanager
async def open_member(url: str, hub: Hub, policy: Policy) -> AsyncIterator[Member | None]:
    """Open a member of the cluster at `url`, within trio-asyncio's loop; None without a URL.

    Errors: BadRedisUrl.
    """
    if not url:
        yield None
        return
    stats = ClusterStats()
    identity = f"{gethostname()}:{os.getpid()}:{token_hex(4)}"
    async with open_bus(url, identity, policy, stats) as bus:
        yield Member(hub, bus, policy, stats)
