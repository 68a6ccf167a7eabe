"""One pool of connections to Redis, and how a server listens to channels.

The only module that knows redis-py. It imports redis and trio-asyncio when it opens a link: a server
without REDIS_URL needs neither.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import uniform
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

import trio

if TYPE_CHECKING:  # a server without REDIS_URL does not import redis
    from redis.asyncio import BlockingConnectionPool, Redis
    from redis.asyncio.client import PubSub
    from redis.asyncio.connection import AbstractConnection

CLOSE_TIMEOUT = 1.0
"""Seconds that closing the pool may take."""

MAX_WAIT = 1.0
"""Seconds that a listener waits for a message before it looks at its clock."""

T = TypeVar("T")


class BadRedisUrl(Exception):
    """REDIS_URL is not the address of a Redis. The message is one line."""


class RedisLost(Exception):
    """Redis did not answer, or it answered with an error. It may still have done the operation."""


class RedisRefused(RedisLost):
    """Redis did not get the operation, or answered it with an error."""


class WrongType(RedisRefused):
    """A key holds a value of another type than the operation needs."""


@dataclass(frozen=True, kw_only=True)
class Subscription:
    """The `channels` to listen to, and the functions to call. All of them must return at once.

    A listener alone does not notice that Redis is frozen. So it publishes `probe` every `interval`
    seconds and waits for its return. If none returns for `patience` seconds, the connection counts as
    dead. The listener opens the next one after a random time between the two values of `pause`. So
    instances do not all come back at once.

    Arguments:
        probe: its channel, one of `channels`, and its payload.
        subscribed: called for each new connection. Messages before that may have been lost.
        received: called with channel and payload; returns whether the message is its own probe.
        returned: called with the seconds that the probe took.
        lost: called with the reason, also after each attempt to connect that failed.
    """

    channels: Sequence[str]
    probe: tuple[str, bytes]
    interval: float
    patience: float
    pause: tuple[float, float]
    received: Callable[[bytes, bytes], bool]
    lost: Callable[[str], None]
    subscribed: Callable[[], None] = lambda: None
    returned: Callable[[float], None] = lambda _: None


class RedisLink:
    """Made by `open_link`. Operations use `redis`, redis-py's client, within `call`."""

    def __init__(self, redis: "Redis") -> None:
        from redis.exceptions import RedisError, ResponseError
        from trio_asyncio import aio_as_trio

        self.redis = redis
        self._answers = ResponseError
        # redis-py raises Python's own errors for answers that it cannot read.
        self._errors = (RedisError, OSError, TimeoutError, ValueError, OverflowError)
        self._on_asyncio = aio_as_trio(self._call)
        self._listen_on_asyncio = aio_as_trio(self._listen)

    async def call(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Return the result of an operation of redis-py. Errors: RedisLost."""
        result: T = await self._on_asyncio(operation)
        return result

    async def listen(self, subscription: Subscription) -> None:
        """Listen until cancelled. Connect anew as often as needed."""
        await self._listen_on_asyncio(subscription)

    async def _call(self, operation: Callable[[], Awaitable[T]]) -> T:
        try:
            return await operation()
        except self._errors as error:
            text = _words(error)
            if not isinstance(error, self._answers):
                raise RedisLost(text) from error
            raise (WrongType if "WRONGTYPE" in text else RedisRefused)(text) from error

    async def _listen(self, subscription: Subscription) -> None:
        while True:
            _raise_lost_cancellation()
            try:
                async with self.redis.pubsub() as pubsub:
                    await pubsub.subscribe(*subscription.channels)
                    subscription.subscribed()
                    await self._receive(pubsub, subscription)
            except (*self._errors, RedisRefused) as error:
                subscription.lost(_words(error))
            await asyncio.sleep(uniform(*subscription.pause))

    async def _receive(self, pubsub: "PubSub", subscription: Subscription) -> None:
        returned_at = sent_at = monotonic()
        probe_at = 0.0
        while True:
            _raise_lost_cancellation()
            if monotonic() >= probe_at:
                sent_at = monotonic()
                await self.redis.publish(*subscription.probe)
                probe_at = sent_at + subscription.interval
            timeout = min(MAX_WAIT, max(0.001, probe_at - monotonic()))
            message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=timeout)
            if message is None:
                if monotonic() - returned_at > subscription.patience:
                    raise TimeoutError("no probe came back")
            elif subscription.received(message["channel"], message["data"]):
                returned_at = monotonic()
                subscription.returned(returned_at - sent_at)


def _words(error: Exception) -> str:
    """Return what happened, also of an error without words."""
    return str(error) or type(error).__name__


def _raise_lost_cancellation() -> None:
    """Raise a cancellation that redis-py swallowed while it connected: trio-asyncio sends only one."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _make_pool(url: str, *, connections: int, patience: float) -> "BlockingConnectionPool":
    """Return a pool. An operation without a connection fails with RedisRefused, as Redis did not get
    it. Errors: ValueError, TypeError, RedisError.
    """
    from redis.asyncio import BlockingConnectionPool
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import RedisError

    class Pool(BlockingConnectionPool):
        async def get_connection(self, *words: Any, **options: Any) -> "AbstractConnection":
            connect: Callable[..., Awaitable[AbstractConnection]] = super().get_connection
            try:
                return await connect(*words, **options)
            except (RedisError, OSError, TimeoutError) as error:
                raise RedisRefused(_words(error)) from error

    pool = Pool.from_url(
        url,
        max_connections=connections,
        timeout=patience,
        socket_timeout=patience,
        socket_connect_timeout=patience,
        # A connection that is replaced silently has lost messages, and callers retry themselves.
        retry=Retry(NoBackoff(), 0),
    )
    pool.make_connection()  # type: ignore[no-untyped-call]  # only looks at its parameters
    return pool


@asynccontextmanager
async def open_link(url: str, *, connections: int, patience: float) -> AsyncIterator[RedisLink]:
    """Open a pool that connects when it is used, within trio-asyncio's loop. Errors: BadRedisUrl.

    `patience`: seconds for a free connection, for connecting, and for each answer.
    """
    from redis.asyncio import Redis
    from redis.exceptions import RedisError
    from trio_asyncio import aio_as_trio

    try:
        pool = _make_pool(url, connections=connections, patience=patience)
    except (ValueError, TypeError, RedisError) as error:
        raise BadRedisUrl(f"REDIS_URL: {error}") from None
    redis = Redis.from_pool(pool)
    try:
        yield RedisLink(redis)
    finally:
        with trio.CancelScope(shield=True), trio.move_on_after(CLOSE_TIMEOUT):
            await aio_as_trio(redis.aclose)()
