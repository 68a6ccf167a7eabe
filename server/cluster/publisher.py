"""Publishes the leader's moves to the other instances, batch after batch, for one epoch."""

from collections.abc import Iterable, Sequence

import structlog
import trio

from server.cluster.context import ClusterContext
from server.cluster.errors import BusLost, Disagreement, Fenced
from server.cluster.steps import Step
from server.cluster.wire import PAGE_FIELDS, Batch
from server.fanout.freshness import FEED_QUIET
from server.quotes.snapshot import LiveSnapshot
from server.quotes.update import Move

BATCH_MOVES = 1000
"""The most moves of one batch: some milliseconds of work for each instance that gets it."""

MOST_MOVES = 2 * BATCH_MOVES
"""Moves of one batch with a step, which must not be cut. The state of more moves goes to the hash."""

BATCH_INTERVAL = 0.004
"""Seconds between two batches. A price waits here for that long, of the 250 ms promised."""

GAP_INTERVAL = 0.25
"""Seconds to wait after a batch with a gap, because each gap makes every instance read the hash."""

log = structlog.get_logger()


class Publisher:
    """Made by the leader for each epoch. `known` are the symbols that had a price in the hash at its
    beginning. Of another symbol, followers get the state with its first move, and so its base price.

    When nothing moves, an empty batch is published at each heartbeat of the policy. It shows the others
    that they missed nothing.
    """

    def __init__(self, context: ClusterContext, epoch: int, known: Iterable[str]) -> None:
        self._hub, self._bus = context.hub, context.bus
        self._policy, self._state, self._stats = context.policy, context.state, context.stats
        self._steps = context.steps
        self._epoch = epoch
        self._known = set(known)
        self._seq = self._published = 0
        self._stale = ""
        self._beat_at = 0.0
        self._next_at = 0.0

    async def wait(self, until: float) -> None:
        """Wait until there are moves to publish or `until` has come.

        It waits at least for the interval between two batches.
        """
        await trio.sleep_until(self._next_at)
        with trio.move_on_at(min(until, self._beat_at)):
            await self._steps.wait_built()
            await self._hub.journal.wait()

    async def publish(self, *, release: bool = False) -> None:
        """Publish the waiting moves, or a heartbeat if one is due. `release`: it is the last batch.

        If moves cannot be published, the others get them later, as state in the hash.

        Errors: BusLost, Fenced, Disagreement.
        """
        journal, bars = self._hub.journal, self._hub.bars
        closing = await bars.settle()
        step = self._steps.pending
        journal.lose(bars.minutes.restored)
        lost, moves = self._take(step)
        closing = 0 if self._steps.building or journal.waiting else closing
        due = closing or release or trio.current_time() >= self._beat_at
        if not (moves or lost or step or due):
            return
        if closing:
            # All moves before it are in this batch, or in earlier ones.
            bars.close(closing)
        if not self._steps.building:
            # Until then, `close` keeps the minutes that others have to be told of.
            bars.minutes.take_restored()
        if not journal.waiting:
            # A follower that hears of it earlier tells its clients before they have the last prices.
            self._stale = self._stale_reason()
        moved = dict.fromkeys(move.symbol for move in moves)
        batch = Batch(
            epoch=self._epoch,
            seq=self._seq + (2 if lost else 1),
            moves=moves,
            listed=self._snapshots([symbol for symbol in moved if symbol not in self._known]),
            stale=self._stale,
            handover=self._bus.identity if release else "",
            position=journal.position,
            markets=step.news if step else (),
            states=step.states if step else {},
            positions=step.positions if step else {},
            closing=bars.minutes.closing,
        )
        # Also if it fails: it may have been published all the same.
        self._seq = batch.seq
        try:
            await self._agree(batch.listed)
            # The step's own symbols go with it.
            others = [symbol for symbol in lost if not step or symbol not in step.states]
            for start in range(0, len(others), PAGE_FIELDS):
                page = others[start : start + PAGE_FIELDS]
                record = self._steps.record_of_others(page)
                await self._bus.write(self._epoch, self._snapshots(page), record)
            last = moved | dict.fromkeys(step.states) if step else moved
            gone = [symbol for symbol in self._steps.gone if symbol not in self._hub.topics]
            record = self._steps.record(last, whole=bool(lost), gone=gone)
            told = await self._bus.publish(
                batch, self._snapshots(last), record, after=self._published, release=release
            )
        except (BusLost, Fenced, Disagreement, trio.Cancelled):
            journal.lose([*lost, *moved])
            raise
        if not told:
            log.warning("Redis has forgotten the last batches and is told again", epoch=self._epoch)
            journal.lose(self._hub.topics)
        self._published = batch.seq
        self._steps.told(gone)
        self._steps.written(step)
        topics = self._hub.topics
        self._known.update(
            moved, (each for each in lost if each in topics and not topics[each].waiting)
        )
        self._state.position = batch.position
        self._stats.batches_published += 1
        self._stats.moves_published += len(moves)
        now = trio.current_time()
        self._beat_at = now + self._policy.heartbeat
        self._next_at = now + (GAP_INTERVAL if lost else BATCH_INTERVAL)

    def _take(self, step: Step | None) -> tuple[list[str], list[Move]]:
        """Take out the symbols that are lost, and the moves of the next batch. Nothing while a step is
        made, and all that waits when it is made.
        """
        journal = self._hub.journal
        if self._steps.building:
            return [], []
        moves = journal.take(journal.waiting if step else BATCH_MOVES)
        if len(moves) > MOST_MOVES:
            journal.lose(move.symbol for move in moves)
            moves = []
        lost = list(journal.lost)
        journal.lost.clear()
        return lost, moves

    async def _agree(self, listed: Sequence[LiveSnapshot]) -> None:
        """Check that no other instance listed these symbols with newer versions. Errors: Disagreement.

        This instance knows them from trades only.
        """
        if listed:
            versions = {each.symbol: each.version for each in listed}
            claimed = await self._bus.claim(listed)
            if any(each.version > versions[each.symbol] for each in claimed):
                raise Disagreement

    def _snapshots(self, symbols: Iterable[str]) -> Sequence[LiveSnapshot]:
        # Without symbols that were delisted meanwhile.
        topics = self._hub.topics
        return [topics[symbol].live_snapshot() for symbol in symbols if symbol in topics]

    def _stale_reason(self) -> str:
        """Return why this instance has no prices, if not for a quiet feed: each one notices that
        itself.
        """
        status = self._hub.status.message
        quiet = status.status == "live" or status.reason == FEED_QUIET
        return "" if quiet else status.reason
