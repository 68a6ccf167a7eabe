"""Prices from outside in a cluster: each instance takes them, and the leader publishes them.

Every batch, the leader's own too, goes through one queue in Redis. So one instance judges all of them,
in one order. If a publisher's instance leads, it gets the answer when Redis has the moves; on another
instance it gets `queued` when Redis has the batch. `docs/publishing.md` says what these promise.
"""

from collections.abc import Sequence
from contextlib import suppress
from itertools import count, islice
from secrets import token_hex
from struct import Struct
from time import time_ns

import msgspec
import structlog
import trio

from server.cluster.errors import BusLost, BusRefused
from server.cluster.member import Member
from server.cluster.queue import BEGINNING, PriceStreams
from server.cluster.receipts import Own, Receipt, lost, queued
from server.cluster.steps import Step
from server.cluster.wire import QUEUE
from server.cluster.work import Work, queued_work, steps_of, stream_work
from server.feeds.judge import CHUNK, Exchange, Judge, lines_of
from server.feeds.live.venue import VenueFeed
from server.intake.answer import Answer, Reason
from server.intake.batch import Batch, Busy, OnAnswer, Uncertain
from server.intake.intake import Intake
from server.intake.kept_log import KeptLog
from server.intake.market import Notice
from server.intake.new_symbols import MAX_NEW_SYMBOLS, listed_by
from server.intake.objects import Line, Published
from server.intake.queued import Queued, check, encode_queued, split
from server.intake.state import renamed, restore, save
from server.quotes.instrument import Instrument
from server.quotes.update import Update
from server.redis_link import WrongType

READ_ENTRIES = 128
"""Entries read at once from each stream."""

APPENDING = 4
"""Batches that are on their way to Redis at the same time. Others wait for their turn."""

RETRY_INTERVAL = 0.25
"""Seconds after which Redis is asked again."""

RETRY_AFTER = 1.0
"""Seconds after which a refused publisher may try again."""

MAX_FIRST_ANSWER = 16 * 1024
"""Bytes of an answer to a batch with an idempotency key that other instances can give again."""

BROKE_OFF = (
    "Redis broke off while it took the batch, which may count: send it again with the same seq, id or "
    "Idempotency-Key"
)

ID = Struct("<q")
"""One of the ids that were counted."""

log = structlog.get_logger()

_answer_decoder = msgspec.json.Decoder(Answer)


class SharedPrices:
    """The desk of one instance, and the feed of the leader. `run` is called once at a time.

    `stream`: the key of a stream that only the leader reads, '' for none. `venues` are live feeds that
    publish here; they run while this instance leads.
    """

    def __init__(self, intake: Intake, exchange: Exchange, member: Member, stream: str) -> None:
        self.intake = intake
        self.running = False
        self.venues: Sequence[VenueFeed] = ()
        self._judge = Judge(intake, exchange, self._on_notice)
        self._exchange = exchange
        self._steps, self._hub, self._journal = member.steps, member.hub, member.hub.journal
        self._invalid = member.stats.invalid
        self._streams = PriceStreams(member.bus)
        self._keys = [key for key in (QUEUE, stream) if key]
        self._positions: dict[str, str] = {}
        self._own: dict[str, Own] = {}
        self._news: list[Notice] = []
        self._kept = KeptLog()
        self._appending = trio.Semaphore(APPENDING)

    async def offer(self, batch: Batch, on_answer: OnAnswer) -> None:
        """Put a batch into the queue if there is room. Errors: Busy, Uncertain."""
        await self._append(batch, on_answer, wait=False)

    async def put(self, batch: Batch, on_answer: OnAnswer) -> None:
        """Put a batch into the queue once there is room."""
        await self._append(batch, on_answer, wait=True)

    def rename(self, symbol: str, new: str, now: int) -> None:
        """Go on with what is known of `symbol` under its new name."""
        self.intake.rename(symbol, new, now)
        self._steps.rename(symbol, new, lambda state: renamed(symbol, state, new, now))

    def forget(self, symbols: Sequence[str]) -> None:
        """Forget symbols that were delisted. The steps forget them with the quotes."""
        self.intake.forget(symbols)

    async def run(self, updates: trio.MemorySendChannel[Update]) -> None:
        """Publish what the streams bring until cancelled."""
        await self._load()
        self.running = True
        try:
            async with trio.open_nursery() as nursery:
                for venue in self.venues:
                    nursery.start_soon(venue.run)
                await self._publish_all(updates)
        finally:
            self.running = False
            # The next leader judges the others. A batch that is not in the queue yet answers itself.
            for own in [*self._own.values()]:
                if own.receipt.queued:
                    self._settle_queued(own.receipt)

    async def _publish_all(self, updates: trio.MemorySendChannel[Update]) -> None:
        while True:
            work = [each for key in self._keys for each in await self._read(key)]
            for step in steps_of(work):
                await self._publish(step, updates)
            if not work:
                await self._wait()

    async def _append(self, batch: Batch, on_answer: OnAnswer, *, wait: bool) -> None:
        receipt = Receipt(batch.key, on_answer)
        if await self._is_answered(receipt):
            return
        entries = await self._entries(batch, receipt)
        self._judge.report(batch.source, receipt.answer)
        if self.running and not entries:
            # Its answer comes behind those to the batches before it.
            entries = [Own(receipt, [], Queued(batch.source, batch.epoch, token_hex(8), []))]
        receipt.waiting = len(entries)
        if entries:
            keys = [own.entry.key for own in entries]
            self._own |= {own.entry.key: own for own in entries}
            try:
                # The keys stay: if Redis got the entries the first time, they count once.
                await self._send([encode_queued(own.entry) for own in entries], wait=wait)
            except BaseException:
                for key in keys:
                    self._own.pop(key, None)
                raise
            receipt.queued = True
        if not self.running or not entries:
            self._settle_queued(receipt)
            await self._remember(receipt)

    async def _is_answered(self, receipt: Receipt) -> bool:
        """Give a batch whose key was seen before the first answer again."""
        if receipt.key:
            with suppress(BusLost, ValueError, RecursionError):
                if first := await self._streams.first_answer(receipt.key):
                    receipt.answer = _answer_decoder.decode(first)
                    receipt.settle()
                    return True
        return False

    async def _remember(self, receipt: Receipt) -> None:
        """Let all instances give the answer again."""
        answer = msgspec.json.encode(receipt.answer)
        if receipt.key and len(answer) <= MAX_FIRST_ANSWER:
            with suppress(BusLost):
                await self._streams.remember_answer(receipt.key, answer)

    def _settle_queued(self, receipt: Receipt) -> None:
        """Answer that a batch is in the queue."""
        mine = [key for key, own in self._own.items() if own.receipt is receipt]
        receipt.answer.accepted += sum(len(self._own.pop(key).lines) for key in mine)
        receipt.answer.state = "queued"
        receipt.settle()

    async def _entries(self, batch: Batch, receipt: Receipt) -> list[Own]:
        """Check a batch, and return its good objects as entries."""
        good, away = list[Line](), list[str]()
        lines = lines_of(batch)
        while chunk := [*islice(lines, CHUNK)]:
            known = await self._judge.look_up(chunk, away)
            checked = check(known, self._exchange, batch.symbols, time_ns() // 1000)
            receipt.answer.add(checked.answer)
            good += checked.good
            await trio.lowlevel.checkpoint()
        name = f"{receipt.key:x}" if receipt.key else token_hex(8)
        found = []
        for start, stop in split(good):
            contents = [line.content for line in good[start:stop]]
            objects = [each for each in contents if isinstance(each, Published)]
            entry = Queued(batch.source, batch.epoch, f"{name} {start}", objects)
            found.append(Own(receipt, good[start:stop], entry))
        return found

    async def _send(self, entries: Sequence[bytes], *, wait: bool) -> None:
        """Errors: Busy, Uncertain, unless it is to `wait`."""
        sent = False
        for attempt in count():
            problem = "more prices come than can be published"
            try:
                async with self._appending:
                    if await self._streams.append(entries):
                        return
            except BusLost as error:
                problem = f"Redis does not take prices at the moment: {error}"
                # The script adds all entries or none. Without its answer, they may be there.
                sent = sent or not isinstance(error, BusRefused)
                if attempt == 0:
                    # The connection may be one from before a restart of Redis.
                    continue
            if not wait:
                raise Uncertain(BROKE_OFF, RETRY_AFTER) if sent else Busy(problem, RETRY_AFTER)
            await trio.sleep(RETRY_INTERVAL)

    async def _load(self) -> None:
        """Go on from where the last leader was."""
        while True:
            try:
                progress = await self._streams.load_progress()
                break
            except BusLost:
                await trio.sleep(RETRY_INTERVAL)
        now = time_ns() // 1000
        self.intake.begin()
        progress, heard = self._steps.newest_of(progress)
        self._journal.lose([*heard, *self._follow_renames(now)])
        unreadable = restore(self.intake, self._steps.states, now)
        for ids in progress.ids:
            whole = len(ids) - len(ids) % ID.size
            self.intake.ids.restore((key for (key,) in ID.iter_unpack(ids[:whole])), now)
        self.intake.ids.news, self._news = [], []
        self._kept = KeptLog()
        self._kept.restore(self.intake, progress.kept, now)
        self._positions = {key: progress.positions.get(key, BEGINNING) for key in self._keys}
        symbols = len(progress.states)
        log.info("publishing", symbols=symbols, unreadable=unreadable, **self._positions)

    def _follow_renames(self, now: int) -> list[str]:
        """Drop the states of delisted symbols, and move those of renamed ones. Return the new names."""
        known = self._steps.states.keys() | self._steps.markets.keys()
        gone = known & self._hub.delisted.keys()
        for symbol in gone:
            if (new := self._hub.present_symbol(symbol)) == symbol:
                self._steps.forget([symbol])
            else:
                self.rename(symbol, new, now)
        return [self._hub.present_symbol(symbol) for symbol in gone]

    async def _read(self, key: str) -> list[Work]:
        waiting = queued(self._own) if key == QUEUE else []
        try:
            entries = await self._streams.read(key, self._positions[key], READ_ENTRIES)
        except BusLost as error:
            if isinstance(error.__cause__, WrongType):
                # The key of a program's stream may hold something else.
                self._invalid.report("redis_keys", key, str(error))
            return []
        if key != QUEUE:
            return stream_work(key, entries)
        work = [queued_work(entry, self._invalid) for entry in entries]
        whole = len(entries) < READ_ENTRIES
        if gone := lost(waiting, [each.entry.key for each in work], whole=whole):
            # Their publishers wait for an answer. If Redis has them after all, they count once.
            log.warning("Redis has forgotten batches, which count all the same", entries=len(gone))
        return [self._own[key].work for key in gone if key in self._own] + work

    async def _wait(self) -> None:
        try:
            await self._streams.wait_entries(self._positions)
        except BusLost:
            await trio.sleep(RETRY_INTERVAL)

    async def _publish(self, work: Sequence[Work], updates: trio.MemorySendChannel[Update]) -> None:
        """Make one step, and answer this instance's publishers when it is written."""
        await self._list(work)
        self._steps.begin()
        moved, answers = set[str](), []
        for each in work:
            answers.append(await self._judge_one(each, updates, moved))
            if each.stream:
                self._positions[each.stream] = each.id
        await self._judge.published(moved, updates)
        states = {symbol: save(self.intake, symbol) for symbol in self._symbols(work)}
        ids, self.intake.ids.news = self.intake.ids.news or [], []
        news, self._news = tuple(self._news), []
        packed = b"".join(map(ID.pack, ids))
        kept = self._kept.take(self.intake, time_ns() // 1000)
        positions = dict(self._positions)
        await self._steps.finish(
            Step(states, packed, news, positions, QUEUE, kept, self._kept.length)
        )
        for each, answer in zip(work, answers, strict=True):
            await self._answer(each, answer)

    def _symbols(self, work: Sequence[Work]) -> set[str]:
        """Return the present names of some work's symbols."""
        given = {
            line.content.symbol
            for each in work
            for line in each.lines
            if isinstance(line.content, Published)
        }
        return {found.symbol for each in given if (found := self._exchange.instrument(each))}

    async def _list(self, work: Sequence[Work]) -> None:
        """List the symbols of some work.

        The cluster agrees on a new symbol before its first trade counts. Otherwise the trade would be
        in Redis before its step is.
        """
        new, away, now = dict[str, Instrument](), list[str](), time_ns() // 1000
        for each in work:
            for line in await self._judge.look_up(each.lines, away):
                given = line.content
                if not isinstance(given, Published):
                    continue
                symbol = given.symbol
                if (
                    self._exchange.instrument(symbol) is None
                    and self._exchange.may_list(symbol)
                    and self.intake.new.listed + len(new) < MAX_NEW_SYMBOLS
                    and (instrument := listed_by(given, now))
                ):
                    new.setdefault(symbol, instrument)
        if new:
            self.intake.new.listed += len(new)
            await self._exchange.list_new([*new.values()])

    async def _judge_one(
        self, work: Work, updates: trio.MemorySendChannel[Update], moved: set[str]
    ) -> Answer:
        entry, ids = work.entry, self.intake.ids
        # Otherwise the intake would do it behind the next line, and forget the key after a pause.
        ids.pass_time(time_ns() // 1000)
        if entry.key and entry.id in ids:
            return Answer(duplicate=len(work.lines))
        if entry.key:
            ids.add(entry.id)
        answer = await self._judge.judge(
            work.lines, (entry.source, entry.epoch, None), updates, moved
        )
        self._judge.report(entry.source, answer)
        return answer

    async def _answer(self, work: Work, answer: Answer) -> None:
        own = self._own.pop(work.entry.key, None)
        if own is None:
            return
        answer.rejected = [
            own.lines[each.line - 1].reject(Reason(each.code, each.message))
            for each in answer.rejected
        ]
        own.receipt.answer.add(answer)
        own.receipt.waiting -= 1
        if own.receipt.waiting:
            return
        # Another instance may have taken the batch with this key meanwhile.
        if not (own.receipt.answer.duplicate and await self._is_answered(own.receipt)):
            await self._remember(own.receipt)
            own.receipt.settle()

    def _on_notice(self, notice: Notice) -> None:
        self._news.append(notice)
        self._exchange.announce(notice)
