"""Makes prices for all instances: its feed runs, and each move is published, until somebody else leads.

A leader that Redis does not answer serves its own clients on, and tells the others later: nobody else
can make prices for them either, unless they reach a Redis that this instance does not; then it is
refused there, as of an old epoch, and follows.
"""

from collections.abc import Awaitable, Callable

import structlog
import trio

from server.cluster.context import ClusterContext
from server.cluster.errors import BusLost, Disagreement, Fenced
from server.cluster.publisher import BATCH_MOVES, Publisher

RETRY_INTERVAL = 0.25
"""Seconds after which a leader that Redis did not answer tries again."""

HANDOVER_TIMEOUT = 1.0
"""Seconds for the last batches of a leader that stops."""

log = structlog.get_logger()


class Leader:
    """One instance in the time of its lease. `giving_up`: it is to end that."""

    def __init__(self, context: ClusterContext) -> None:
        self.leading = False
        self.giving_up = False
        self._context = context
        self._hub, self._bus, self._policy, self._state, self._batches, self._stats = context
        self._publisher: Publisher
        self._deposed = False

    async def lead(
        self, epoch: int, feed: Callable[[int], Awaitable[None]], begun: Callable[[], None]
    ) -> int:
        """Lead in `epoch` until somebody else does or it is given up; 0, or the epoch in which to
        lead anew. `begun` is called once the others are to be told of it.
        """
        self.giving_up, self._deposed = False, False
        try:
            if not await self._begin(epoch, feeding=False):
                return 0
        except BusLost as error:
            log.warning("elected in vain", epoch=epoch, problem=str(error))
            return 0
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
            self._hub.journal.close()
            self._hub.discard_waiting()
        return another

    async def _begin(self, epoch: int, *, feeding: bool) -> bool:
        """Begin `epoch` with the newest state there is; False if that is not this instance's, which
        has to stop its feed first. Errors: BusLost.
        """
        self._state.unclaimed = False
        stored = await self._bus.load()
        older = stored.mark is not None and stored.mark.epoch > self._state.epoch
        if older and feeding:
            return False
        self._hub.adopt(stored.snapshots.values(), older=older)
        self._state.epoch = self._state.led = epoch
        self._hub.begin_epoch(str(epoch))
        self._hub.journal.open()
        versions = {symbol: each.version for symbol, each in stored.snapshots.items()}
        self._hub.journal.lose(
            symbol
            for symbol, topic in self._hub.topics.items()
            if topic.version > versions.get(symbol, 0)
        )
        self._publisher = Publisher(self._context, versions)
        self._stats.elections += 1
        log.info("leading", epoch=epoch, symbols=len(versions))
        return True

    async def _publish(self) -> int:
        """Publish and renew the lease until somebody else leads or it is given up; 0, or the epoch in
        which to lead anew.
        """
        renew_at = 0.0
        while not self.giving_up:
            try:
                if trio.current_time() >= renew_at or self._hears_another():
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
                renew_at = 0.0  # before anything else: somebody may have been elected meanwhile
                await trio.sleep(RETRY_INTERVAL)
            else:
                await self._publisher.wait(renew_at)
        return 0

    async def _renew(self) -> int:
        """Renew the lease: the line's epoch if this instance goes on to lead, 0 if somebody else leads,
        another epoch if it has to lead anew in that. Errors: BusLost.
        """
        known = self._state.epoch
        answer = await self._bus.acquire_lease(
            own=0 if self._state.unclaimed else known, known=known
        )
        if not answer.epoch:
            log.warning("another instance leads", epoch=known)
        elif answer.forgotten:
            log.warning("Redis has forgotten everything and is told again", epoch=known)
            self._hub.journal.lose(self._hub.topics)
        elif answer.epoch != known:
            await self._begin(answer.epoch, feeding=True)
        return answer.epoch

    def _hears_another(self) -> bool:
        """Whether a newer leader has published since this was last asked."""
        newer = False
        while True:
            try:
                batch = self._batches.receive_nowait()
            except trio.WouldBlock:
                return newer
            newer = newer or (batch is not None and batch.epoch > self._state.epoch)

    async def _give_up(self) -> None:
        """Publish what is left, and the lease's end."""
        try:
            while self._hub.journal.waiting > BATCH_MOVES:
                await self._publisher.publish()
            await self._publisher.publish(release=True)
            log.info("handed over", epoch=self._state.epoch)
        except (BusLost, Fenced, Disagreement) as error:
            log.warning("could not hand over", problem=str(error) or type(error).__name__)
