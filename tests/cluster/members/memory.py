"""A Redis in memory, and instances that share it: no sockets, no other process, a clock that jumps."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import trio

from server.cluster.bus import NOTHING, Answer
from server.cluster.errors import BusLost, Fenced
from server.cluster.member import Member
from server.cluster.state import Policy
from server.cluster.stats import ClusterStats
from server.cluster.steps import Record
from server.cluster.wire import Batch, Mark, Stored, decode_batch, encode_batch
from server.fanout.broadcaster import give
from server.fanout.hub import Hub
from server.quotes.instrument import Instrument
from server.quotes.snapshot import LiveSnapshot
from server.quotes.update import FeedPosition, Trade

LEASE = 3.0
STALE_AFTER = 4.0

SOON = 0.2
"""Seconds in which a batch arrives, and a follower looks at its clocks and reads the hash."""

START_MS = 1_764_000_000_000


class MemoryRedis:
    """Does what the scripts of `server.cluster.scripts` do. tests/cluster/test_bus.py tests those."""

    def __init__(self) -> None:
        self.leader = ""
        self.lease_end = 0.0
        self.epoch = 0
        self.mark: Mark | None = None
        self.quotes: dict[str, LiveSnapshot] = {}
        self.watched: dict[str, int] = {}
        self.behind_ms = 0
        self.buses: list[MemoryBus] = []
        self.published: list[Batch] = []
        self.records: list[Record] = []

    @property
    def holder(self) -> str:
        """The identity of the leader while its lease lasts."""
        return self.leader if trio.current_time() < self.lease_end else ""

    @property
    def now_ms(self) -> int:
        """Redis' clock, which may be behind."""
        return START_MS + round(trio.current_time() * 1000) - self.behind_ms

    def forget_everything(self) -> None:
        """Restart empty, so quickly that no connection is lost."""
        self.leader, self.epoch, self.mark = "", 0, None
        self.quotes.clear()
        self.watched.clear()

    def lose(self) -> None:
        """Stop answering everybody."""
        for bus in self.buses:
            bus.lose()

    def come_back(self) -> None:
        """Answer everybody again."""
        for bus in self.buses:
            bus.come_back()


class MemoryBus:
    """One instance's connection to a MemoryRedis. `deaf`: it loses what is published meanwhile.

    `calls` counts commands by name. A command whose name is in `failing` is not carried out; one in
    `unanswered` is, and fails all the same. `delay` is each command's time in seconds.
    """

    def __init__(self, redis: MemoryRedis, identity: str, policy: Policy) -> None:
        self.identity = identity
        self.connection: int | None = None
        self.problem = ""
        self.refusal = ""
        self.tried = trio.Event()
        self.calls: Counter[str] = Counter()
        self.failing: set[str] = set()
        self.unanswered: set[str] = set()
        self.deaf = False
        self.delay = 0.0
        self.interests: list[list[str]] = []
        self._redis = redis
        self._policy = policy
        self._connections = 0
        self._batches: trio.MemorySendChannel[Batch | None] | None = None
        redis.buses.append(self)

    async def listen(self, batches: trio.MemorySendChannel[Batch | None]) -> None:
        """Connect, and stay until cancelled."""
        self._batches = batches
        self.come_back()
        await trio.sleep_forever()

    def lose(self) -> None:
        """Lose the connection."""
        self.connection, self.problem = None, "lost"
        self._wake()

    def come_back(self) -> None:
        """Connect anew."""
        self._connections += 1
        self.connection = self._connections
        self._wake()

    def hear(self, batch: Batch | None) -> None:
        """Pass on what is published."""
        if self._batches is not None and not self.deaf and self.connection:
            self._batches.send_nowait(batch)

    def _wake(self) -> None:
        self.tried.set()
        if self._batches is not None:
            self._batches.send_nowait(None)

    async def acquire_lease(self, *, own: int | None, known: int | None) -> Answer:
        """Take the lease or renew it."""
        with self._command("acquire_lease"):
            await trio.sleep(self.delay)
            redis = self._redis
            if redis.holder not in ("", self.identity):
                return Answer(cast("Any", None), redis.lease_end - trio.current_time(), False)
            forgotten = bool(own) and not redis.epoch
            if forgotten:
                redis.epoch = own or 0
            elif not own or redis.epoch != own:
                redis.epoch = max(redis.epoch + 1, (known or 0) + 1, redis.now_ms)
            redis.leader = self.identity
            redis.lease_end = trio.current_time() + self._policy.lease
            return Answer(redis.epoch, 0.0, forgotten)

    async def publish(
        self,
        batch: Batch,
        snapshots: Iterable[LiveSnapshot],
        record: Record = NOTHING,
        *,
        after: int = 0,
        release: bool = False,
    ) -> bool:
        """Publish a batch and write snapshots."""
        with self._command("publish"):
            await trio.sleep(self.delay)
            redis = self._redis
            self._write(batch.epoch, snapshots)
            redis.records.append(record)
            redis.mark = Mark(batch.epoch, batch.seq, batch.position, batch.closing)
            sent = decode_batch(encode_batch(batch), ClusterStats().invalid)
            assert sent == batch
            redis.published.append(batch)
            for bus in redis.buses:
                bus.hear(batch)
            if release and redis.holder == self.identity:
                redis.lease_end = 0.0
            return True

    async def write(
        self,
        epoch: int,
        snapshots: Iterable[LiveSnapshot],
        record: Record = NOTHING,
    ) -> None:
        """Write snapshots."""
        with self._command("write"):
            await trio.sleep(self.delay)
            self._write(epoch, snapshots)
            self._redis.records.append(record)

    def _write(self, epoch: int, snapshots: Iterable[LiveSnapshot]) -> None:
        if epoch != self._redis.epoch:
            raise Fenced
        snapshots = list(snapshots)
        assert len(snapshots) <= 1000
        self._redis.quotes.update({each.symbol: each for each in snapshots})

    async def load(self) -> Stored:
        """Read the hash."""
        with self._command("load"):
            await trio.sleep(self.delay)
            redis = self._redis
            return Stored(redis.mark, dict(redis.quotes), bool(redis.holder))

    async def claim(self, snapshots: Sequence[LiveSnapshot]) -> list[LiveSnapshot]:
        """Add what is missing, and return what is there."""
        with self._command("claim"):
            await trio.sleep(self.delay)
            return [self._redis.quotes.setdefault(each.symbol, each) for each in snapshots]

    async def forget(self, symbols: Sequence[str]) -> None:
        """Remove symbols."""
        with self._command("forget"):
            await trio.sleep(self.delay)
            for symbol in symbols:
                self._redis.quotes.pop(symbol, None)

    async def share_interest(
        self, symbols: Iterable[str], since: int | None, lifetime: float
    ) -> tuple[int, list[str]]:
        """Report what is watched, and return what others reported."""
        with self._command("share_interest"):
            await trio.sleep(self.delay)
            redis, now = self._redis, self._redis.now_ms
            reported = list(symbols)
            if reported:
                self.interests.append(reported)
            redis.watched.update(dict.fromkeys(reported, now))
            for symbol, told in list(redis.watched.items()):
                if told <= now - lifetime * 1000:
                    del redis.watched[symbol]
            if since is None:
                return now, []
            return now, [symbol for symbol, told in redis.watched.items() if told >= since]

    @contextmanager
    def _command(self, name: str) -> Iterator[None]:
        self.calls[name] += 1
        if not self.connection or name in self.failing:
            raise BusLost(f"{name} failed")
        yield
        if not self.connection or name in self.unanswered:
            raise BusLost(f"{name} was not answered")


class Instance:
    """A hub and its member of the cluster. `positions` are those with which its feed was begun."""

    def __init__(self, redis: MemoryRedis, name: str, *symbols: str, **options: Any) -> None:
        """`options` are the policy's."""
        settings = {"lease": LEASE, "stale_after": STALE_AFTER, "candidate": True, "local": False}
        self.policy = Policy(**{**settings, **options})
        self.hub = Hub([instrument(symbol) for symbol in symbols or ("AAPL", "MSFT")])
        self.bus = MemoryBus(redis, name, self.policy)
        self.stats = ClusterStats()
        self.member = Member(self.hub, cast("Any", self.bus), self.policy, self.stats)
        self.positions: list[FeedPosition] = []
        self.feeding = False
        self.listed: list[list[str]] = []
        self._scope = trio.CancelScope()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Be a member until `stop`, and say so once it is settled."""
        with self._scope:
            async with trio.open_nursery() as tasks:
                await tasks.start(self.hub.run)
                tasks.start_soon(self.member.run, self._feed, self._list_symbols)
                await self.member.settled.wait()
                task_status.started()

    def stop(self) -> None:
        """Stop as a server does."""
        self._scope.cancel()

    def trade(self, symbol: str, price: float, size: int = 100, row: int = 0) -> None:
        """Move a quote, as this instance's feed does."""
        now = START_MS * 1000 + round(trio.current_time() * 1e6)
        trade = Trade(symbol, price, size, now, now, row=row)
        topic = self.hub.topics[symbol]
        if full := give(self.hub, topic, trade):
            full.conflate(trade)

    def version(self, symbol: str = "AAPL") -> int:
        """The version of a quote."""
        return self.hub.topics[symbol].version

    @property
    def state(self) -> dict[str, LiveSnapshot]:
        """Return the state that other instances should have, too."""
        return {symbol: topic.live_snapshot() for symbol, topic in self.hub.topics.items()}

    @property
    def status(self) -> tuple[str, str]:
        """Return the status that this instance's clients were told last."""
        message = self.hub.status.message
        return message.status, message.reason

    async def _feed(self, position: FeedPosition) -> None:
        self.positions.append(position)
        self.feeding = True
        try:
            await trio.sleep_forever()
        finally:
            self.feeding = False

    async def _list_symbols(self, symbols: Sequence[str]) -> None:
        self.listed.append(list(symbols))
        self.hub.list_snapshots([])
        for symbol in symbols:
            self.hub.list_instrument(instrument(symbol))


def instrument(symbol: str) -> Instrument:
    """One at a hundred dollars."""
    return Instrument(symbol=symbol, name=f"{symbol} Inc.", base_price=100.0)


async def until(condition):
    """Wait for `condition`, to a hundredth of a second."""
    for _ in range(3000):
        if condition():
            return
        await trio.sleep(0.01)
    raise AssertionError("it did not happen within 30 seconds")
