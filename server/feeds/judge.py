"""Lets the intake judge published objects, sends the updates, and waits until they are published."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from time import perf_counter, time_ns
from typing import Protocol

import structlog
import trio

from server.intake.answer import INTERNAL_ERROR, Answer, Reason
from server.intake.batch import Batch
from server.intake.intake import Intake
from server.intake.market import Market, Notice, Taken
from server.intake.objects import Line, Published, read_batch
from server.pacing import wait_until
from server.quotes.instrument import Instrument
from server.quotes.update import Update

CHUNK = 64
"""Objects read, and published, at a time."""

TURN = 0.002
"""Seconds of judging without yielding. Most chunks take less, those with many late trades more."""

REPORT_INTERVAL = 1.0
"""Seconds between two log lines about publishers' mistakes."""

log = structlog.get_logger()


class Exchange(Market, Protocol):
    """The symbols and topics that prices are for."""

    async def look_up(self, symbols: Sequence[str]) -> Sequence[str]:
        """Let the market know those that exist. Return those about which nothing can be said now."""

    async def list_new(self, instruments: Sequence[Instrument]) -> None:
        """List symbols that no store has, in the state that the whole cluster has."""

    def announce(self, notice: Notice) -> None:
        """Tell a symbol's subscribers that its market was halted or closed, or is open again."""

    async def published(self, symbols: Iterable[str]) -> None:
        """Wait until all updates of `symbols` that their topics have now are published."""


@contextmanager
def survived(what: str) -> Iterator[None]:
    """Log a fault of the server, so that it does not end the feed."""
    try:
        yield
    except Exception:
        log.exception("publishing failed", what=what)


def lines_of(batch: Batch) -> Iterator[Line]:
    """Return the objects of a batch. A fault of the server costs the rest of the body it reads."""
    for frame, body in enumerate(batch.bodies, batch.first_frame):
        read = 0
        try:
            for line in read_batch(body, frame):
                read = line.number
                yield line
        except Exception:
            log.exception("published batch cannot be read", source=batch.source, line=read + 1)
            yield Line(read + 1, INTERNAL_ERROR, frame)


class Judge:
    """Owns the intake. One task at a time may judge. `announce` is called for each notice."""

    def __init__(
        self, intake: Intake, exchange: Exchange, announce: Callable[[Notice], None]
    ) -> None:
        self.intake = intake
        self.exchange = exchange
        self._announce = announce
        self._report_at = 0.0
        self._unreported = 0
        self._dropped = 0

    async def judge(
        self,
        lines: Iterable[Line],
        batch: tuple[str, str, Sequence[str] | None],
        updates: trio.MemorySendChannel[Update],
        moved: set[str],
    ) -> Answer:
        """Send the updates of `lines`. Return the answer, and add the symbols to `moved`.

        Arguments:
            batch: the source, its epoch, and the symbols that the publisher may name.
        """
        answer, lines, away = Answer(), iter(lines), list[str]()
        while chunk := [*islice(lines, CHUNK)]:
            taken = await self._take(chunk, batch, away)
            answer.add(taken.answer)
            for effect in taken.effects:
                if isinstance(effect, Notice):
                    # A client sees it behind the prices before it.
                    await self.published([effect.symbol], updates)
                    with survived("status"):
                        self._announce(effect)
                    continue
                moved.add(effect.symbol)
                try:
                    updates.send_nowait(effect)
                except trio.WouldBlock:
                    await updates.send(effect)
            await trio.lowlevel.checkpoint()
        return answer

    async def _take(
        self, chunk: list[Line], batch: tuple[str, str, Sequence[str] | None], away: list[str]
    ) -> Taken:
        """Look the symbols up and judge the objects."""
        taken, rest = Taken([], Answer()), deque(await self.look_up(chunk, away))
        while rest:
            part = self.intake.take(_turn(rest), *batch, time_ns() // 1000)
            taken.effects.extend(part.effects)
            taken.answer.add(part.answer)
            if rest:
                await trio.lowlevel.checkpoint()
        return taken

    async def look_up(self, lines: list[Line], away: list[str]) -> list[Line]:
        """Look symbols up that are not in memory. Refuse those about which nothing can be said. A fault
        of the server refuses them all.

        `away` gets these. If it has any, the store gave no answer before, and is not asked again.
        """
        try:
            return await self._look_up(lines, away)
        except Exception:
            log.exception("published objects failed", objects=len(lines))
            return [Line(each.number, INTERNAL_ERROR, each.frame) for each in lines]

    async def _look_up(self, lines: list[Line], away: list[str]) -> list[Line]:
        cold = {
            line.content.symbol
            for line in lines
            if isinstance(line.content, Published)
            and self.exchange.instrument(line.content.symbol) is None
        }
        if cold and not away:
            away.extend(unavailable := await self.exchange.look_up([*cold]))
        else:
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

    async def published(
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
        await self.exchange.published(symbols)

    def report(self, source: str, answer: Answer) -> None:
        """Log one of the mistakes in a second, and held trades that were dropped."""
        before, self._dropped = self._dropped, self.intake.held.dropped
        # An intake that began anew counts from 0.
        if dropped := self._dropped - (before if before <= self._dropped else 0):
            log.warning("held trades dropped for want of room", trades=dropped)
        if not answer.rejected:
            return
        self._unreported += len(answer.rejected)
        if trio.current_time() >= self._report_at:
            self._report_at = trio.current_time() + REPORT_INTERVAL
            first = answer.rejected[0]
            log.warning(
                "published objects rejected",
                source=source,
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
