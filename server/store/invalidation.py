"""Tells every instance which symbols to forget, by Redis Pub/Sub, and notices when it does not work.

Pub/Sub promises nothing: a message is lost while a connection is down, and a frozen Redis is never
noticed by listening. So each instance publishes a probe, and expects to hear it.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from random import uniform
from secrets import token_hex
from time import monotonic
from typing import Annotated, Any

import msgspec
import structlog
from redis.asyncio.client import PubSub
from trio_asyncio import aio_as_trio

from server.quotes.record import Decoder, read_symbol
from server.store.cache_redis import ERRORS, RedisCache
from server.store.catalogue import BATCH_ROWS

CHANNEL = "market_data_invalidate"

PROBE_INTERVAL = 5.0
"""Seconds between two probes."""

PROBE_TIMEOUT = 2 * PROBE_INTERVAL
"""Seconds without a probe after which the connection is taken to be dead."""

MAX_NOTICE_BYTES = 1024 * 1024
"""Of one notice: BATCH_ROWS of the longest symbols take a fifth of that; more are not looked at."""

RECONNECT_MIN, RECONNECT_MAX = 0.5, 2.0
"""Seconds to wait before connecting anew, drawn evenly."""

log = structlog.get_logger()


class Notice(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message on the channel: symbols to forget, at most BATCH_ROWS, or the probe of one instance."""

    symbols: Annotated[Sequence[Any], msgspec.Meta(max_length=BATCH_ROWS)] = ()
    probe: str = ""


class Invalidations:
    """One instance's end of the channel."""

    def __init__(self, cache: RedisCache) -> None:
        self._cache = cache
        self._redis = cache.redis
        self._probe = token_hex(8)
        self._heard_at = 0.0

    async def publish(self, symbols: Sequence[str]) -> None:
        """Tell all instances, this one too, to forget. Errors: StoreUnavailable."""
        await self._cache.run(lambda: self._redis.publish(CHANNEL, _encode(Notice(symbols))))

    async def run(
        self, forget: Callable[[Sequence[str]], None], missed: Callable[[], None]
    ) -> None:
        """Listen until cancelled, connecting anew as often as needed.

        Arguments:
            forget: called with the symbols that some instance invalidated.
            missed: called whenever messages may have been lost. Both must be immediate.
        """
        await aio_as_trio(self._run)(forget, missed)

    async def _run(
        self, forget: Callable[[Sequence[str]], None], missed: Callable[[], None]
    ) -> None:
        hears = True
        while True:
            try:
                async with self._redis.pubsub() as pubsub:
                    await pubsub.subscribe(CHANNEL)
                    missed()
                    if not hears:
                        log.info("invalidations are heard again")
                    hears = True
                    await self._listen(pubsub, forget)
            except ERRORS as error:
                if hears:
                    log.warning("invalidations are not heard", problem=str(error))
                hears = False
            await asyncio.sleep(uniform(RECONNECT_MIN, RECONNECT_MAX))

    async def _listen(self, pubsub: PubSub, forget: Callable[[Sequence[str]], None]) -> None:
        self._heard_at = monotonic()
        probe_at = 0.0
        while True:
            _raise_lost_cancellation()
            if monotonic() >= probe_at:
                await self._redis.publish(CHANNEL, _encode(Notice(probe=self._probe)))
                probe_at = monotonic() + PROBE_INTERVAL
            message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=1.0)
            if message is not None and (symbols := self._symbols(message["data"])):
                forget(symbols)
            if monotonic() - self._heard_at > PROBE_TIMEOUT:
                raise TimeoutError("no probe came back")

    def _symbols(self, data: bytes) -> Sequence[str]:
        invalid = self._cache.stats.invalid
        notice = invalid.read("invalidations", CHANNEL, partial(_decoder.decode, data))
        if notice is None:
            return ()
        if notice.probe == self._probe:
            self._heard_at = monotonic()
        read = (
            invalid.read("invalidations", symbol, partial(read_symbol, symbol))
            for symbol in notice.symbols
        )
        return [symbol for symbol in read if symbol is not None]


def _raise_lost_cancellation() -> None:
    """While it connects, redis-py may swallow a cancellation, of which trio-asyncio sends only one."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


_encode = msgspec.json.Encoder().encode
_decoder = Decoder(Notice, "json", MAX_NOTICE_BYTES)
