"""Publishes what publishers send: the only feed whose prices come from outside.

Batches wait in a short queue. One task takes them out, lets the intake judge them, and sends the
updates. So the intake has one user, and a publisher that leaves does not cut its batch in two.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import structlog
import trio

from server.feeds.judge import Exchange, Judge, lines_of, survived
from server.feeds.live.venue import VenueFeed
from server.intake.answer import Answer
from server.intake.batch import Batch, Busy, OnAnswer
from server.intake.intake import Intake
from server.quotes.update import Update

WAITING_BATCHES = 16
"""Batches that wait: 16 MB at most, or some milliseconds' worth of single objects."""

UNANSWERED_BATCHES = 256
"""Batches that are judged and not published yet."""

RETRY_AFTER = 1.0
"""Seconds after which a refused publisher may try again: a full queue takes less."""

log = structlog.get_logger()


class _Waiting(NamedTuple):
    batch: Batch
    on_answer: OnAnswer


class _Judged(NamedTuple):
    answer: Answer
    symbols: set[str]
    on_answer: OnAnswer


class Push:
    """The desk that takes batches, and the feed of their updates. `run` is called once at a time.

    `venues` are live feeds that publish here; they run while it does.
    """

    def __init__(self, intake: Intake, exchange: Exchange) -> None:
        self.intake = intake
        self.running = False
        self.venues: Sequence[VenueFeed] = ()
        self._judge = Judge(intake, exchange, exchange.announce)
        self._send, self._receive = trio.open_memory_channel[_Waiting](WAITING_BATCHES)

    async def offer(self, batch: Batch, on_answer: OnAnswer) -> None:
        """Take a batch if there is room. Errors: Busy."""
        if not self.running:
            raise Busy("this instance does not take prices at the moment", RETRY_AFTER)
        try:
            self._send.send_nowait(_Waiting(batch, on_answer))
        except trio.WouldBlock:
            raise Busy("more prices come than can be published", RETRY_AFTER) from None

    async def put(self, batch: Batch, on_answer: OnAnswer) -> None:
        """Take a batch once there is room."""
        await self._send.send(_Waiting(batch, on_answer))

    async def run(self, updates: trio.MemorySendChannel[Update]) -> None:
        """Publish batch after batch until cancelled."""
        self.running = True
        send, receive = trio.open_memory_channel[_Judged](UNANSWERED_BATCHES)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._answer, receive, updates)
                for venue in self.venues:
                    nursery.start_soon(venue.run)
                async for batch, on_answer in self._receive:
                    answer, symbols = await self._publish(batch, updates)
                    await send.send(_Judged(answer, symbols, on_answer))
        finally:
            self.running = False
            if self.intake.held.count:
                log.warning("held trades are forgotten", trades=self.intake.held.count)

    async def _publish(
        self, batch: Batch, updates: trio.MemorySendChannel[Update]
    ) -> tuple[Answer, set[str]]:
        """Send the updates of a batch. Return its answer, and the symbols that it moved."""
        symbols = set[str]()
        named = batch.source, batch.epoch, batch.symbols
        # Frames of one object each are judged together, and so share a round.
        answer = await self._judge.judge(lines_of(batch), named, updates, symbols)
        self._judge.report(batch.source, answer)
        return answer, symbols

    async def _answer(
        self, judged: trio.MemoryReceiveChannel[_Judged], updates: trio.MemorySendChannel[Update]
    ) -> None:
        """Answer each batch when its updates are published, and those behind it at the same time."""
        async for first in judged:
            group = [first]
            with suppress(trio.WouldBlock):
                while True:
                    group.append(judged.receive_nowait())
            await self._judge.published(set().union(*(each.symbols for each in group)), updates)
            for each in group:
                with survived("answer"):
                    each.on_answer(each.answer)
