"""Publishes what publishers send: the only feed whose prices come from outside.

Batches wait in a short queue. One task takes them out, lets the intake judge them, and sends the
updates. So the intake has one user, and a publisher that leaves does not cut its batch in two.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice
from time import perf_counter, time_ns
from typing import NamedTuple, Protocol

import structlog
import trio

from server.feeds.live.feed import LiveFeed
from server.intake.answer import INTERNAL_ERROR, Answer, Reason
from server.intake.batch import Batch, Busy, OnAnswer
from server.intake.intake import Intake, Market, Notice, Taken
from server.intake.objects import Line, Published, read_batch
from server.pacing import wait_until
from server.quotes.update import Update

WAITING_BATCHES = 16
"""Batches that wait: 16 MB at most, or some milliseconds' worth of single objects."""

UNANSWERED_BATCHES = 256
"""Batches that are judged and not published yet."""

CHUNK = 64
"""Objects read, and published, at a time."""

TURN = 0.002
"""Seconds of judging without yielding. Most chunks take less, those with many late trades more."""

RETRY_AFTER = 1.0
"""Seconds after which a refused publisher may try again: a full queue takes less."""

REPORT_INTERVAL = 1.0
"""Seconds between two log lines about publishers' mistakes."""

log = structlog.get_logger()


class Exchange(Market, Protocol):
    """The symbols and topics that prices are for."""

    async def look_up(self, symbols: Sequence[str]) -> Sequence[str]:
        """Let the market know those that exist. Return those about which nothing can be said now."""

    def announce(self, notice: Notice) -> None:
        """Tell a symbol's subscribers that its market was halted or closed, or is open again."""

    async def published(self, symbols: Iterable[str]) -> None:
        """Wait until all updates of `symbols` that their topics have now are published."""


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
        self.venues: Sequence[LiveFeed] = ()
        self._exchange = exchange
        self._send, self._receive = trio.open_memory_channel[_Waiting](WAITING_BATCHES)
        self._report_at = 0.0
        self._unreported = 0
        self._dropped = 0

    def offer(self, batch: Batch, on_answer: OnAnswer) -> None:
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
        answer, symbols, away = Answer(), set[str](), list[str]()
        frames = enumerate(batch.bodies, batch.first_frame)
        lines = chain.from_iterable(read_batch(body, frame) for frame, body in frames)
        # Frames of one object each are judged together, and so share a round.
        while chunk := [*islice(lines, CHUNK)]:
            taken = await self._judge(chunk, batch, away)
            answer.add(taken.answer)
            for effect in taken.effects:
                if isinstance(effect, Notice):
                    # A client sees it behind the prices before it.
                    await self._published([effect.symbol], updates)
                    self._exchange.announce(effect)
                    continue
                symbols.add(effect.symbol)
                try:
                    updates.send_nowait(effect)
                except trio.WouldBlock:
                    await updates.send(effect)
            await trio.lowlevel.checkpoint()
        self._report(batch, answer)
        if dropped := self.intake.held.dropped - self._dropped:
            self._dropped += dropped
            log.warning("held trades dropped for want of room", trades=dropped)
        return answer, symbols

    async def _judge(self, chunk: list[Line], batch: Batch, away: list[str]) -> Taken:
        """Look the symbols up and judge the objects. A fault of the server refuses them all."""
        try:
            known = await self._look_up(chunk, away)
            taken, rest = Taken([], Answer()), deque(known)
            while rest:
                now, lines = time_ns() // 1000, _turn(rest)
                part = self.intake.take(lines, batch.source, batch.epoch, batch.symbols, now)
                taken.effects.extend(part.effects)
                taken.answer.add(part.answer)
                if rest:
                    await trio.lowlevel.checkpoint()
        except Exception:
            log.exception("published objects failed", source=batch.source, objects=len(chunk))
            return Taken([], Answer(rejected=[each.reject(INTERNAL_ERROR) for each in chunk]))
        else:
            return taken

    async def _look_up(self, lines: list[Line], away: list[str]) -> list[Line]:
        """Look symbols up that are not in memory. Refuse those about which nothing can be said.

        `away` has the symbols without an answer in this batch.
        """
        cold = {
            line.content.symbol
            for line in lines
            if isinstance(line.content, Published)
            and self._exchange.instrument(line.content.symbol) is None
        }
        if cold and not away:
            unavailable = await self._exchange.look_up([*cold])
            away.extend(unavailable)
        else:
            # The store gave no answer in this batch before: the others do not wait for it again.
            unavailable = [*cold]
        if not unavailable:
            return lines
        refused = Reason("store_unavailable", "the store gives no answer about this symbol")
        return [
            Line(each.number, refused, each.frame)
            if isinstance(each.content, Published) and each.content.symbol in unavailable
            else each
            for each in lines
        ]

    async def _answer(
        self,
        judged: trio.MemoryReceiveChannel[_Judged],
        updates: trio.MemorySendChannel[Update],
    ) -> None:
        """Answer each batch when its updates are published, and those behind it at the same time."""
        async for first in judged:
            group = [first]
            with suppress(trio.WouldBlock):
                while True:
                    group.append(judged.receive_nowait())
            await self._published(set().union(*(each.symbols for each in group)), updates)
            for each in group:
                each.on_answer(each.answer)

    async def _published(
        self, symbols: Iterable[str], updates: trio.MemorySendChannel[Update]
    ) -> None:
        """Wait until all updates of `symbols` that were sent before are published."""
        # The broadcaster has routed all updates when it waits for the next one.
        await wait_until(
            lambda: (
                updates.statistics().tasks_waiting_receive > 0
                and not updates.statistics().current_buffer_used
            )
        )
        await self._exchange.published(symbols)

    def _report(self, batch: Batch, answer: Answer) -> None:
        """Log one of the mistakes in a second."""
        if not answer.rejected:
            return
        self._unreported += len(answer.rejected)
        if trio.current_time() >= self._report_at:
            self._report_at = trio.current_time() + REPORT_INTERVAL
            first = answer.rejected[0]
            log.warning(
                "published objects rejected",
                source=batch.source,
                code=first.code,
                problem=first.message,
                line=first.line,
                rejected=self._unreported,
            )
            self._unreported = 0


def _turn(rest: deque[Line]) -> Iterator[Line]:
    """Take lines out for as long as a turn lasts, at least one."""
    end = perf_counter() + TURN
    while rest:
        yield rest.popleft()
        if perf_counter() > end:
            return
