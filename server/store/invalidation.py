"""Tells every instance which symbols to forget, by Redis Pub/Sub, and notices when that fails.

Pub/Sub promises nothing: a message is lost while a connection is down. So each instance publishes
probes and waits for their return (`redis_link.Subscription`).
"""

from collections.abc import Callable, Sequence
from functools import partial
from secrets import token_hex
from typing import Annotated, Any

import msgspec
import structlog

from server.quotes.record import Decoder, read_symbol
from server.redis_link import Subscription
from server.store.cache_redis import RedisCache
from server.store.catalogue import BATCH_ROWS

CHANNEL = "market_data_invalidate"

PROBE_INTERVAL = 5.0
"""Seconds between two probes."""

PROBE_TIMEOUT = 2 * PROBE_INTERVAL
"""Seconds without a probe after which the connection counts as dead."""

MAX_NOTICE_BYTES = 1024 * 1024
"""Of one notice: BATCH_ROWS of the longest symbols take a fifth of that; more are not looked at."""

RECONNECT_PAUSE = (0.5, 2.0)
"""Seconds to wait before connecting anew, the shortest and the longest."""

log = structlog.get_logger()


class Notice(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message on the channel: symbols to forget, at most BATCH_ROWS, or the probe of one instance."""

    symbols: Annotated[Sequence[Any], msgspec.Meta(max_length=BATCH_ROWS)] = ()
    probe: str = ""


class Invalidations:
    """One instance's end of the channel."""

    def __init__(self, cache: RedisCache) -> None:
        self._cache = cache
        self._probe = token_hex(8)
        self._listening = True

    async def publish(self, symbols: Sequence[str]) -> None:
        """Tell all instances, this one too, to forget. Errors: StoreUnavailable."""
        await self._cache.run(lambda: self._cache.redis.publish(CHANNEL, _encode(Notice(symbols))))

    async def run(
        self, forget: Callable[[Sequence[str]], None], missed: Callable[[], None]
    ) -> None:
        """Listen until cancelled. Connect anew as often as needed.

        Arguments:
            forget: called with the symbols that some instance invalidated.
            missed: called whenever messages may have been lost. Both must return at once.
        """
        subscription = Subscription(
            channels=[CHANNEL],
            probe=(CHANNEL, _encode(Notice(probe=self._probe))),
            interval=PROBE_INTERVAL,
            patience=PROBE_TIMEOUT,
            pause=RECONNECT_PAUSE,
            subscribed=missed,
            received=partial(self._on_message, forget),
            returned=self._on_returned,
            lost=self._on_lost,
        )
        await self._cache.link.listen(subscription)

    def _on_returned(self, _: float) -> None:
        """Note that a probe came back. A subscription proves nothing: an ACL may forbid it."""
        if not self._listening:
            log.info("invalidations are heard again")
        self._listening = True

    def _on_lost(self, problem: str) -> None:
        if self._listening:
            log.warning("invalidations are not heard", problem=problem)
        self._listening = False

    def _on_message(self, forget: Callable[[Sequence[str]], None], _: bytes, data: bytes) -> bool:
        """Forget what a notice names. Return whether it is this instance's probe."""
        invalid = self._cache.stats.invalid
        notice = invalid.read("invalidations", CHANNEL, partial(_decoder.decode, data))
        if notice is None:
            return False
        read = (
            invalid.read("invalidations", symbol, partial(read_symbol, symbol))
            for symbol in notice.symbols
        )
        if symbols := [symbol for symbol in read if symbol is not None]:
            forget(symbols)
        return notice.probe == self._probe


_encode = msgspec.json.Encoder().encode
_decoder = Decoder(Notice, "json", MAX_NOTICE_BYTES)
