"""Makes prices for all instances: runs the feed and publishes each move until another instance leads.

If Redis does not answer, the leader goes on serving its own clients, and publishes later. Meanwhile no
other instance can lead, except when the others reach Redis and only this instance does not. Then Redis
later refuses this instance as a leader of an old epoch, and it follows.
"""

from collections.abc import Awaitable, Callable

import structlog
import trio

from server.cluster.context import ClusterContext
from server.cluster.errors import BusLost, Disagreement, Fenced
from server.cluster.publisher import BATCH_MOVES, Publisher
from server.cluster.steps import ahead_of_hash, announce
from server.quotes.update import FeedPosition

RETRY_INTERVAL = 0.25
"""Seconds after which a leader that Redis did not answer tries again."""

HANDOVER_TIMEOUT = 1.0
"""Seconds for the last batches of a leader that stops."""

log = structlog.get_logger()


class Leader:
    """One instance while it holds the lease. Set `giving_up` to end that."""

    def __init__(self, context: ClusterContext) -> None:
        self.leading = False
        self.giving_up = False
        self._context = context
        self._hub, self._bus = context.hub, context.bus
        self._policy, self._state, self._stats = context.policy, context.state, context.stats
        self._batches, self._steps = context.batches, context.steps
        self._publisher: Publisher
        self._deposed = False

    async def lead(
        self, epoch: int, feed: Callable[[FeedPosition], Awaitable[None]], begun: Callable[[], None]
    ) -> int | None:
        """Lead in `epoch` until another instance leads or `giving_up` is set.

        Returns the epoch in which to lead anew, or None. `begun` is called before the feed starts.
        """
        self.giving_up, self._deposed = False, False
        try:
            if not await self._begin(epoch, feeding=False):
                return None
        except BusLost as error:
            log.warning("elected in vain", epoch=epoch, problem=str(error))
            return None
        self.leading = True
        begun()
        try:
            async with trio.open_nursery() as leading:
                leading.start_soon(feed, self._state.position)
                another = await self._publish()
                leading.cancel_scope.cancel()
        finally:
            if not self._deposed:
                with trio.CancelScope(shield=True), trio.move_on_after(HANDOVER_TIMEOUT):
                    await self._give_up()
            self.leading = False
            self._state.abandoned = self._steps.abandon()
            self._hub.journal.close()
            self._hub.discard_waiting()
        return another

    async def _begin(self, epoch: int, *, feeding: bool) -> bool:
        """Begin `epoch` with the newest state there is. Errors: BusLost.

        Returns False if this instance is `feeding` and the hash is of a newer epoch than its own. It
        then has to stop its feed first.
        """
        self._state.unclaimed = False
        stored = await self._bus.load()
        older = stored.mark is not None and self._state.is_newer(stored.mark.epoch)
        if older and feeding:
            return False
        if not feeding:
            older, self._state.abandoned = older or self._state.abandoned, False
        if not feeding:
            self._hub.bars.follow(stored.closing, exactly=older)
        self._hub.adopt(stored.snapshots.values(), older=older)
        self._hub.bars.close(self._hub.bars.minutes.closed_to)
        if stored.mark is not None and not feeding:
            announce(self._hub, self._steps.replace_markets(stored.markets))
        self._state.epoch = self._state.led = epoch
        self._hub.begin_epoch(str(epoch))
        self._hub.journal.open(self._state.position)
        known = stored.snapshots
        self._steps.ahead = ahead_of_hash(self._hub, known)
        self._hub.journal.lose(self._steps.ahead)
        priced = [symbol for symbol, each in known.items() if each.price is not None]
        self._publisher = Publisher(self._context, epoch, priced)
        self._stats.elections += 1
        log.info("leading", epoch=epoch, symbols=len(known))
        return True

    async def _publish(self) -> int | None:
        """Publish and renew the lease until another instance leads or `giving_up` is set.

        Returns the epoch in which to lead anew, or None.
        """
        renew_at = 0.0
        while not self.giving_up:
            try:
                if trio.current_time() >= renew_at or self._another_publishes():
                    if (epoch := await self._renew()) != self._state.epoch:
                        self._deposed = True
                        return epoch
                    renew_at = trio.current_time() + self._policy.lease / 3
                await self._publisher.publish()
            except Fenced:
                renew_at = 0.0
            except Disagreement:
                renew_at, self._state.unclaimed = 0.0, True
            except BusLost:
                # Before anything else: another instance may have been elected meanwhile.
                renew_at = 0.0
                await trio.sleep(RETRY_INTERVAL)
            else:
                await self._publisher.wait(renew_at)
        return None

    async def _renew(self) -> int | None:
        """Renew the lease. Errors: BusLost.

        Returns the present epoch if this instance goes on leading. Returns another epoch if it has to
        lead anew in that one, or None if another instance leads.
        """
        known = self._state.epoch
        own = None if self._state.unclaimed else known
        answer = await self._bus.acquire_lease(own=own, known=known)
        if answer.epoch is None:
            log.warning("another instance leads", epoch=known)
        elif answer.forgotten:
            log.warning("Redis has forgotten everything and is told again", epoch=known)
            self._hub.journal.lose(self._hub.topics)
        elif answer.epoch != known:
            await self._begin(answer.epoch, feeding=True)
        return answer.epoch

    def _another_publishes(self) -> bool:
        """Return whether a newer leader has published since the last call."""
        newer = False
        while True:
            try:
                batch = self._batches.receive_nowait()
            except trio.WouldBlock:
                return newer
            newer = newer or (batch is not None and self._state.is_newer(batch.epoch))

    async def _give_up(self) -> None:
        """Publish the remaining moves and release the lease."""
        try:
            while self._hub.journal.waiting > BATCH_MOVES and not self._steps.building:
                await self._publisher.publish()
            await self._publisher.publish(release=True)
            log.info("handed over", epoch=self._state.epoch)
        except (BusLost, Fenced, Disagreement) as error:
            log.warning("could not hand over", problem=str(error) or type(error).__name__)
