"""One instance's connections to Redis.

The only module here that knows of redis and asyncio. Publishing proves nothing and a frozen Redis is
never noticed by listening, so the instance publishes probes which it expects to hear: the bus is
connected from the first that comes back on a connection until one fails to, or anything else fails.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count
from random import uniform
from time import monotonic
from typing import Any, NamedTuple, TypeVar, cast

import structlog
import trio
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from trio_asyncio import aio_as_trio

from server.cluster import scripts
from server.cluster.errors import BadBusUrl, BusLost, Fenced
from server.cluster.state import Policy
from server.cluster.stats import ClusterStats
from server.cluster.wire import (
    CHANNEL,
    EPOCH,
    LEADER,
    META,
    PAGE_FIELDS,
    PROBE_CHANNEL,
    QUOTES,
    WATCHED,
    Batch,
    Mark,
    Stored,
    decode_batch,
    decode_mark,
    decode_snapshots,
    decode_watched,
    encode_batch,
    encode_json,
)
from server.quotes.snapshot import LiveSnapshot

COMMAND_TIMEOUT = 1.0
"""Seconds of one command, which takes one millisecond; a third of a lease, if that is shorter."""

RECONNECT_MIN, RECONNECT_MAX = 0.2, 1.0
"""Seconds to wait before connecting anew, drawn evenly: instances should not come all at once."""

CONNECTIONS = 6
"""To Redis: one that listens, and commands of publisher, election, interest and clients' symbols."""

ERRORS = (RedisError, OSError, TimeoutError, ValueError, OverflowError)
"""Errors of redis-py when Redis is at fault, and Python's own for answers that it cannot read."""

KEY_TYPES = {QUOTES: "hash", EPOCH: "string", LEADER: "string", WATCHED: "zset"}
"""In the order of the script MEND's keys."""

T = TypeVar("T")

log = structlog.get_logger()


class Answer(NamedTuple):
    """What became of standing for election: the epoch in which to lead, which is above all known ones
    if it is not one's own; or 0, and for how many seconds the lease is somebody else's. `forgotten`:
    Redis has lost all it knew.
    """

    epoch: int
    taken_for: float
    forgotten: bool


class Bus:
    """Made by `open_bus`. `connection` is 0 while the bus is lost, for the reason in `problem`, else
    the number of the connection, so that a new one is seen to be another. `tried` is set once it is
    known whether the first attempt was good. `refusal` is why the last command failed, '' if it did
    not: probes may come back from a Redis that is full, or lets itself only be read.
    """

    def __init__(self, redis: "Redis", identity: str, policy: Policy, stats: ClusterStats) -> None:
        self.identity = identity
        self.connection = 0
        self.problem = "not connected yet"
        self.refusal = ""
        self.tried = trio.Event()
        self._redis = redis
        self._lease_ms = round(policy.lease * 1000)
        self._policy = policy
        self._stats = stats
        self._numbers = count(1)
        self._acquire_lease = redis.register_script(scripts.ACQUIRE_LEASE)
        self._publish = redis.register_script(scripts.PUBLISH)
        self._claim = redis.register_script(scripts.CLAIM)
        self._watch = redis.register_script(scripts.WATCH)
        self._discard = redis.register_script(scripts.DISCARD)
        self._mend = redis.register_script(scripts.MEND)

    async def listen(self, heard: trio.MemorySendChannel[Batch | None]) -> None:
        """Send what is published to `heard` until cancelled, connecting anew as often as needed.

        None is sent when `connection` changes. What `heard` has no room for is dropped: whoever
        reads it sees from the numbers of the batches that some are missing.
        """
        await aio_as_trio(self._listen)(heard)

    async def acquire_lease(self, *, own: int, known: int) -> Answer:
        """Take the lease, or renew it in the epoch that is one's `own` (0: none). Errors: BusLost."""
        arguments: list[str | int] = [self.identity, self._lease_ms, own, known]
        keys = [LEADER, EPOCH]
        number, forgotten = await self._do(lambda: self._acquire_lease(keys=keys, args=arguments))
        return Answer(max(number, 0), max(-number, 0) / 1000, bool(forgotten))

    async def publish(
        self, batch: Batch, snapshots: Iterable[LiveSnapshot], *, release: bool = False
    ) -> None:
        """Publish `batch` and write `snapshots` in one step; `release`: give the lease up in it, too.

        Errors: Fenced, BusLost.
        """
        await self._write(batch.epoch, snapshots, encode_batch(batch), batch.seq, release=release)

    async def write(self, epoch: int, snapshots: Iterable[LiveSnapshot]) -> None:
        """Write `snapshots` without telling anybody. Errors: Fenced, BusLost."""
        await self._write(epoch, snapshots)

    async def load(self) -> Stored:
        """What the hash holds of one epoch. Errors: BusLost."""
        return await self._do(self._load)

    async def claim(self, snapshots: Sequence[LiveSnapshot]) -> list[LiveSnapshot]:
        """Add the symbols that the hash has no snapshot of, and return what it has of all. Errors:
        BusLost.
        """
        found: list[LiveSnapshot] = []
        for start in range(0, len(snapshots), PAGE_FIELDS):
            found += await self._claim_page(snapshots[start : start + PAGE_FIELDS])
        return found

    async def forget(self, symbols: Sequence[str]) -> None:
        """Remove symbols from the hash. Errors: BusLost."""
        await self._do(lambda: self._redis.hdel(QUOTES, *symbols))

    async def share_interest(
        self, symbols: Iterable[str], since: int | None, lifetime: float
    ) -> tuple[int, list[str]]:
        """Say that `symbols` are watched here, which is forgotten after `lifetime` seconds.

        Returns Redis' time in ms and, unless `since` is None, what was said to be watched from
        then on, by anybody. Errors: BusLost.
        """
        arguments: list[str | int] = ["" if since is None else since, round(lifetime * 1000)]
        arguments += symbols
        now, watched = await self._do(lambda: self._watch(keys=[WATCHED], args=arguments))
        return int(now), decode_watched(watched, self._stats.invalid)

    async def _claim_page(self, snapshots: Sequence[LiveSnapshot]) -> list[LiveSnapshot]:
        found, bad = await self._claim_once(snapshots)
        if bad:
            values = [part for field_and_value in bad.items() for part in field_and_value]
            await self._do(lambda: self._discard(keys=[QUOTES], args=values))
            missing = [each for each in snapshots if each.symbol.encode() in bad]
            found |= (await self._claim_once(missing))[0]
        return list(found.values())

    async def _claim_once(
        self, snapshots: Sequence[LiveSnapshot]
    ) -> tuple[dict[str, LiveSnapshot], dict[bytes, bytes]]:
        """The snapshots by symbol, and of the other fields their values."""
        fields = _fields(snapshots)
        values = await self._do(lambda: self._claim(keys=[QUOTES], args=fields))
        pairs = {each.symbol.encode(): value for each, value in zip(snapshots, values, strict=True)}
        found = decode_snapshots(pairs.items(), self._stats.invalid)
        return found, {key: value for key, value in pairs.items() if key.decode() not in found}

    async def _write(
        self,
        epoch: int,
        snapshots: Iterable[LiveSnapshot],
        payload: bytes = b"",
        seq: int = 0,
        *,
        release: bool = False,
    ) -> None:
        giver = self.identity if release else ""
        mark = encode_json(Mark(epoch, seq))
        arguments = [epoch, CHANNEL, payload, mark, giver, *_fields(snapshots)]
        keys = [EPOCH, QUOTES, LEADER]
        if not await self._do(lambda: self._publish(keys=keys, args=arguments)):
            self._stats.fenced += 1
            raise Fenced

    async def _do(self, operation: Callable[[], Awaitable[T]]) -> T:
        try:
            result: T = await aio_as_trio(self._attempt)(operation)
        except BusLost as error:
            if self.connection and not self.refusal:
                log.warning("the bus does not do what it is asked", problem=str(error))
            self.refusal = str(error)
            raise
        self.refusal = ""
        return result

    async def _attempt(self, operation: Callable[[], Awaitable[T]]) -> T:
        """On asyncio. Errors: BusLost."""
        try:
            try:
                return await operation()
            except ResponseError as error:
                if "WRONGTYPE" not in str(error):
                    raise
                await self._mend_keys()
                return await operation()
        except ERRORS as error:
            raise BusLost(str(error) or type(error).__name__) from error

    async def _mend_keys(self) -> None:
        """Put keys of the wrong type aside, so that they cannot stop the election or the publishing."""
        found = await self._mend(keys=list(KEY_TYPES), args=list(KEY_TYPES.values()))
        for key, kind in cast("list[tuple[bytes, bytes]]", found):
            name = key.decode()
            problem = (
                f"it was a {kind.decode()}, not a {KEY_TYPES[name]}: renamed to {name}:invalid"
            )
            self._stats.invalid.report("redis_keys", name, problem)

    async def _load(self) -> Stored:
        invalid = self._stats.invalid
        mark = decode_mark(await self._redis.hget(QUOTES, META), invalid)
        while True:
            snapshots: dict[str, LiveSnapshot] = {}
            cursor = None
            while cursor != 0:
                cursor, page = await self._redis.hscan(QUOTES, cursor or 0, count=PAGE_FIELDS)
                fields = cast("dict[bytes, bytes]", page)
                fields.pop(META.encode(), None)
                snapshots |= decode_snapshots(fields.items(), invalid)
            before, mark = mark, decode_mark(await self._redis.hget(QUOTES, META), invalid)
            if (before and before.epoch) == (mark and mark.epoch):
                return Stored(before, snapshots, bool(await self._redis.exists(LEADER)))

    async def _listen(self, heard: trio.MemorySendChannel[Batch | None]) -> None:
        probe_channel = PROBE_CHANNEL + self.identity
        while True:
            _raise_lost_cancellation()
            try:
                async with self._redis.pubsub() as pubsub:
                    await pubsub.subscribe(CHANNEL, probe_channel)
                    await self._receive(pubsub, probe_channel, heard)
            except ERRORS as error:
                self._lose(str(error) or type(error).__name__, heard)
            await asyncio.sleep(uniform(RECONNECT_MIN, RECONNECT_MAX))

    async def _receive(
        self, pubsub: PubSub, probe_channel: str, heard: trio.MemorySendChannel[Batch | None]
    ) -> None:
        expected = probe_channel.encode()
        returned_at = sent_at = monotonic()
        probe_at = 0.0
        while True:
            _raise_lost_cancellation()
            if monotonic() >= probe_at:
                sent_at = monotonic()
                await self._redis.publish(probe_channel, b"")
                probe_at = sent_at + self._policy.heartbeat
            timeout = max(0.001, probe_at - monotonic())
            message: dict[str, Any] | None = await pubsub.get_message(True, timeout)
            if message is None:
                if monotonic() - returned_at > self._policy.stale_after:
                    raise TimeoutError("no probe came back")
            elif message["channel"] == expected:
                returned_at = monotonic()
                self._stats.round_trip = returned_at - sent_at
                self._connect(heard)
            elif batch := decode_batch(message["data"], self._stats.invalid):
                self._offer(batch, heard)

    def _offer(self, batch: Batch, heard: trio.MemorySendChannel[Batch | None]) -> None:
        self._stats.batches_received += 1
        self._stats.moves_received += len(batch.moves)
        try:
            heard.send_nowait(batch)
        except trio.WouldBlock:
            self._stats.dropped += 1

    def _connect(self, heard: trio.MemorySendChannel[Batch | None]) -> None:
        if not self.connection:
            self.connection = next(self._numbers)
            self.problem = ""
            if self.connection > 1:
                log.info("the bus is back")
            self._wake(heard)

    def _lose(self, problem: str, heard: trio.MemorySendChannel[Batch | None]) -> None:
        if self.connection or not self.tried.is_set():
            log.warning("the bus is lost", problem=problem)
        self.connection, self.problem = 0, problem
        self._wake(heard)

    def _wake(self, heard: trio.MemorySendChannel[Batch | None]) -> None:
        self.tried.set()
        with suppress(trio.WouldBlock):  # then whoever reads it is awake
            heard.send_nowait(None)


def _raise_lost_cancellation() -> None:
    """While it connects, redis-py may swallow a cancellation, of which trio-asyncio sends only one."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _fields(snapshots: Iterable[LiveSnapshot]) -> list[str | bytes]:
    return [part for each in snapshots for part in (each.symbol, encode_json(each))]


@asynccontextmanager
async def open_bus(
    url: str, identity: str, policy: Policy, stats: ClusterStats
) -> AsyncIterator[Bus]:
    """A bus that connects when it listens. Errors: BadBusUrl."""
    timeout = min(COMMAND_TIMEOUT, policy.lease / 3)
    try:
        # Without retries: silently made connections would have lost messages before.
        pool = BlockingConnectionPool.from_url(
            url, max_connections=CONNECTIONS, timeout=timeout, socket_timeout=timeout,
            socket_connect_timeout=timeout, retry=Retry(NoBackoff(), 0),
        )  # fmt: skip
        pool.make_connection()  # type: ignore[no-untyped-call]  # only looks at its parameters
    except (ValueError, TypeError, RedisError) as error:
        raise BadBusUrl(f"REDIS_URL: {error}") from None
    redis = Redis.from_pool(pool)
    try:
        yield Bus(redis, identity, policy, stats)
    finally:
        with trio.CancelScope(shield=True), trio.move_on_after(timeout):
            await aio_as_trio(redis.aclose)()
