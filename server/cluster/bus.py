"""One instance's conversation with the others, through Redis.

No other module of this package talks to Redis. The bus is connected when a probe comes back on a
connection. It is lost when a probe does not come back or an operation fails
(`redis_link.Subscription`).
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import count
from typing import NamedTuple, TypeVar, cast

import structlog
import trio

from server.cluster import scripts
from server.cluster.errors import BusLost, BusRefused, Fenced
from server.cluster.state import Policy
from server.cluster.stats import ClusterStats
from server.cluster.steps import Record, encode_json
from server.cluster.wire import (
    CHANNEL,
    EPOCH,
    IDS,
    INTAKE,
    KEPT,
    LEADER,
    MARKETS,
    META,
    PAGE_FIELDS,
    PROBE_CHANNEL,
    QUEUE,
    QUOTES,
    WATCHED,
    Batch,
    Mark,
    Stored,
    decode_batch,
    decode_mark,
    decode_markets,
    decode_snapshots,
    decode_watched,
    encode_batch,
)
from server.intake.once import ID_MEMORY_US
from server.quotes.snapshot import LiveSnapshot
from server.redis_link import RedisLink, RedisLost, RedisRefused, Subscription, WrongType, open_link

RECONNECT_PAUSE = (0.2, 1.0)
"""Seconds to wait before connecting anew, the shortest and the longest."""

CONNECTIONS = 10
"""To Redis: one that listens, commands of publisher, election, interest and clients' symbols, one that
waits for the queue, and published batches.
"""

KEY_TYPES = {
    QUOTES: "hash",
    EPOCH: "string",
    LEADER: "string",
    WATCHED: "zset",
    INTAKE: "hash",
    MARKETS: "hash",
    IDS: "stream",
    QUEUE: "stream",
    KEPT: "stream",
}
"""In the order of the script MEND's keys."""

NOTHING = Record({})

ID_MEMORY_MS = ID_MEMORY_US // 1000

T = TypeVar("T")

REPORT_INTERVAL = 60.0
"""Seconds between two log lines about the same problem."""

log = structlog.get_logger()


class Answer(NamedTuple):
    """The result of asking for the lease.

    `epoch`: the epoch to lead in. If it is not the caller's own, it is above all known ones. It is None
    if another instance holds the lease, for `taken_for` more seconds. `forgotten`: Redis lost its data.
    """

    epoch: int | None
    taken_for: float
    forgotten: bool


class Bus:
    """Made by `open_bus`.

    `connection` is None while the bus is lost, for the reason in `problem`. Otherwise it is the number
    of the connection, and each new connection gets another. `tried` is set once the first attempt to
    connect has succeeded or failed. `refusal` is why the last command failed, '' if it did not: probes
    may come back from a Redis that is full or read-only.
    """

    def __init__(self, link: RedisLink, identity: str, policy: Policy, stats: ClusterStats) -> None:
        self.identity = identity
        self.connection: int | None = None
        self.problem = "not connected yet"
        self.refusal = ""
        self._report_at = 0.0
        self._reported = set[str]()
        self.tried = trio.Event()
        self._link = link
        self.redis = redis = link.redis
        self._lease_ms = round(policy.lease * 1000)
        self.patience = policy.patience
        self._policy = policy
        self._stats = stats
        self._numbers = count(1)
        self._batches: trio.MemorySendChannel[Batch | None]
        self._acquire_lease = redis.register_script(scripts.ACQUIRE_LEASE)
        self._publish = redis.register_script(scripts.PUBLISH)
        self._claim = redis.register_script(scripts.CLAIM)
        self._watch = redis.register_script(scripts.WATCH)
        self._discard = redis.register_script(scripts.DISCARD)
        self._mend = redis.register_script(scripts.MEND)

    async def listen(self, batches: trio.MemorySendChannel[Batch | None]) -> None:
        """Send each published batch to `batches` until cancelled. Connect anew as often as needed.

        When `connection` changes, it sends None. While the channel is full, it drops batches; the
        reader notices a gap in their numbers.
        """
        self._batches = batches
        probe_channel = PROBE_CHANNEL + self.identity
        subscription = Subscription(
            channels=(CHANNEL, probe_channel),
            probe=(probe_channel, b""),
            interval=self._policy.heartbeat,
            patience=self._policy.stale_after,
            pause=RECONNECT_PAUSE,
            received=self._on_message,
            returned=self._on_probe,
            lost=self._on_lost,
        )
        await self._link.listen(subscription)

    async def acquire_lease(self, *, own: int | None, known: int | None) -> Answer:
        """Take the lease, or renew it.

        Arguments:
            own: the epoch that the caller leads in, None if it does not lead.
            known: the newest epoch that the caller knows.

        Errors: BusLost.
        """
        arguments: list[str | int] = [self.identity, self._lease_ms, own or 0, known or 0]
        keys = [LEADER, EPOCH]
        number, forgotten = await self.do(lambda: self._acquire_lease(keys=keys, args=arguments))
        if number < 0:
            return Answer(None, -number / 1000, bool(forgotten))
        return Answer(number, 0.0, bool(forgotten))

    async def publish(
        self,
        batch: Batch,
        snapshots: Iterable[LiveSnapshot],
        record: Record = NOTHING,
        *,
        after: int = 0,
        release: bool = False,
    ) -> bool:
        """Publish `batch` and write `snapshots` and `record` in one step. With `release`, it also gives
        up the lease.

        Returns False if Redis did not know the batch with the number `after`, which it once answered.
        Errors: Fenced, BusLost.
        """
        return await self._write(
            batch.epoch, snapshots, record, batch, after=after, release=release
        )

    async def write(
        self, epoch: int, snapshots: Iterable[LiveSnapshot], record: Record = NOTHING
    ) -> None:
        """Write `snapshots` and `record` without telling anybody. Errors: Fenced, BusLost."""
        await self._write(epoch, snapshots, record)

    async def load(self) -> Stored:
        """Return what the hash holds of one epoch. Errors: BusLost."""
        return await self.do(self._load)

    async def claim(self, snapshots: Sequence[LiveSnapshot]) -> list[LiveSnapshot]:
        """Add the symbols that are not in the hash. Return the hash's snapshot of each symbol.

        Errors: BusLost.
        """
        found: list[LiveSnapshot] = []
        for start in range(0, len(snapshots), PAGE_FIELDS):
            found += await self._claim_page(snapshots[start : start + PAGE_FIELDS])
        return found

    async def find(self, symbols: Sequence[str]) -> list[LiveSnapshot]:
        """Return the hash's snapshots of those symbols that it has. Errors: BusLost."""
        values = await self.do(lambda: self.redis.hmget(QUOTES, [*symbols]))
        pairs = zip((symbol.encode() for symbol in symbols), values, strict=True)
        known = cast("list[tuple[bytes, bytes]]", [each for each in pairs if each[1] is not None])
        return [*decode_snapshots(known, self._stats.invalid).values()]

    async def forget(self, symbols: Sequence[str]) -> None:
        """Remove symbols from the hash. Errors: BusLost."""
        await self.do(partial(self.redis.hdel, QUOTES, *symbols))

    async def share_interest(
        self, symbols: Iterable[str], since: int | None, lifetime: float
    ) -> tuple[int, list[str]]:
        """Report `symbols` as watched here. Redis forgets the report after `lifetime` seconds.

        Returns Redis' time in ms, and the symbols that any instance reported from `since` on. Without
        `since` it returns no symbols. Errors: BusLost.
        """
        arguments: list[str | int] = ["" if since is None else since, round(lifetime * 1000)]
        arguments += symbols
        now, watched = await self.do(lambda: self._watch(keys=[WATCHED], args=arguments))
        return int(now), decode_watched(watched, self._stats.invalid)

    async def _claim_page(self, snapshots: Sequence[LiveSnapshot]) -> list[LiveSnapshot]:
        found, bad = await self._claim_once(snapshots)
        if bad:
            values = [part for field_and_value in bad.items() for part in field_and_value]
            await self.do(lambda: self._discard(keys=[QUOTES], args=values))
            missing = [each for each in snapshots if each.symbol.encode() in bad]
            found |= (await self._claim_once(missing))[0]
        return list(found.values())

    async def _claim_once(
        self, snapshots: Sequence[LiveSnapshot]
    ) -> tuple[dict[str, LiveSnapshot], dict[bytes, bytes]]:
        """Return the snapshots by symbol, and the values that are not snapshots by field."""
        fields = _fields(snapshots)
        values = await self.do(lambda: self._claim(keys=[QUOTES], args=fields))
        pairs = {each.symbol.encode(): value for each, value in zip(snapshots, values, strict=True)}
        found = decode_snapshots(pairs.items(), self._stats.invalid)
        return found, {key: value for key, value in pairs.items() if key.decode() not in found}

    async def _write(
        self,
        epoch: int,
        snapshots: Iterable[LiveSnapshot],
        record: Record,
        batch: Batch | None = None,
        *,
        after: int = 0,
        release: bool = False,
    ) -> bool:
        giver = self.identity if release else ""
        payload = mark = b""
        if batch is not None:
            payload = encode_batch(batch)
            mark = encode_json(Mark(epoch, batch.seq, batch.position, batch.closing))
        arguments: list[str | bytes | int] = [epoch, CHANNEL, payload, mark, giver]
        arguments += (record.ids, ID_MEMORY_MS, record.read_to, after)
        arguments += (record.kept, record.kept_entries)
        lists = (_fields(snapshots), _flat(record.states), _flat(record.markets))
        for fields in lists:
            arguments += (len(fields), *fields)
        keys = [EPOCH, QUOTES, LEADER, INTAKE, MARKETS, IDS, QUEUE, KEPT]
        result = await self.do(lambda: self._publish(keys=keys, args=arguments))
        if not result:
            self._stats.fenced += 1
            raise Fenced
        return bool(result == 1)

    async def do(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Do an operation of redis-py, again if it met a key of the wrong type.

        Errors: BusLost, BusRefused.
        """
        try:
            try:
                result = await self._link.call(operation)
            except WrongType:
                await self._link.call(self._mend_keys)
                result = await self._link.call(operation)
        except RedisLost as error:
            problem = str(error)
            if self.connection and not self.refusal:
                self._report(problem)
            self.refusal = problem
            refused = isinstance(error, RedisRefused)
            raise (BusRefused if refused else BusLost)(problem) from error
        self.refusal = ""
        return result

    def _report(self, problem: str) -> None:
        """Log a problem, unless it was logged a moment ago: other operations succeed between two."""
        now = trio.current_time()
        if now >= self._report_at:
            self._report_at = now + REPORT_INTERVAL
            self._reported.clear()
        if problem not in self._reported:
            self._reported.add(problem)
            log.warning("the bus does not do what it is asked", problem=problem)

    async def _mend_keys(self) -> None:
        """Rename keys of the wrong type, so that they cannot stop the election or the publishing."""
        found = await self._mend(keys=list(KEY_TYPES), args=list(KEY_TYPES.values()))
        for key, kind in cast("list[tuple[bytes, bytes]]", found):
            name = key.decode()
            problem = (
                f"it was a {kind.decode()}, not a {KEY_TYPES[name]}: renamed to {name}:invalid"
            )
            self._stats.invalid.report("redis_keys", name, problem)

    async def _load(self) -> Stored:
        invalid = self._stats.invalid
        mark = decode_mark(await self.redis.hget(QUOTES, META), invalid)
        while True:
            snapshots: dict[str, LiveSnapshot] = {}
            cursor = None
            while cursor != 0:
                cursor, page = await self.redis.hscan(QUOTES, cursor or 0, count=PAGE_FIELDS)
                fields = cast("dict[bytes, bytes]", page)
                fields.pop(META.encode(), None)
                snapshots |= decode_snapshots(fields.items(), invalid)
            before, mark = mark, decode_mark(await self.redis.hget(QUOTES, META), invalid)
            if (before and before.epoch) == (mark and mark.epoch):
                markets = cast("dict[bytes, bytes]", await self.redis.hgetall(MARKETS))
                led = bool(await self.redis.exists(LEADER))
                return Stored(before, snapshots, led, decode_markets(markets.items(), invalid))

    def _on_message(self, channel: bytes, data: bytes) -> bool:
        """Pass a batch on. Return whether the message is this instance's probe."""
        if channel != CHANNEL.encode():
            return True
        if batch := decode_batch(data, self._stats.invalid):
            self._stats.batches_received += 1
            self._stats.moves_received += len(batch.moves)
            try:
                self._batches.send_nowait(batch)
            except trio.WouldBlock:
                self._stats.dropped += 1
        return False

    def _on_probe(self, round_trip: float) -> None:
        self._stats.round_trip = round_trip
        if self.connection is None:
            self.connection = next(self._numbers)
            self.problem = ""
            if self.connection > 1:
                log.info("the bus is back")
            self._wake()

    def _on_lost(self, problem: str) -> None:
        if self.connection or not self.tried.is_set():
            log.warning("the bus is lost", problem=problem)
        self.connection, self.problem = None, problem
        self._wake()

    def _wake(self) -> None:
        self.tried.set()
        with suppress(trio.WouldBlock):  # the reader of a full channel is awake
            self._batches.send_nowait(None)


def _fields(snapshots: Iterable[LiveSnapshot]) -> list[str | bytes]:
    return [part for each in snapshots for part in (each.symbol, encode_json(each))]


def _flat(fields: Mapping[str, bytes]) -> list[str | bytes]:
    return [part for item in fields.items() for part in item]


@asynccontextmanager
async def open_bus(
    url: str, identity: str, policy: Policy, stats: ClusterStats
) -> AsyncIterator[Bus]:
    """Open a bus that connects when it listens. Errors: BadRedisUrl."""
    async with open_link(url, connections=CONNECTIONS, patience=policy.patience) as link:
        yield Bus(link, identity, policy, stats)
