"""What the connection to Redis tells of errors."""

from typing import Any, NoReturn, cast

import pytest
import trio
import trio_asyncio

from server.redis_link import RedisLink, RedisLost, Subscription


class Away:
    """A client of a Redis that does not answer. Time-outs of Python have no words."""

    async def ask(self) -> NoReturn:
        """Fail."""
        raise TimeoutError

    def pubsub(self) -> NoReturn:
        """Fail."""
        raise TimeoutError


async def test_error_without_words_is_named():
    """A log line with an empty problem would say nothing, of a call and of a subscription."""
    problems: list[str] = []
    heard = trio.Event()

    def lost(problem: str) -> None:
        problems.append(problem)
        heard.set()

    away = Away()
    subscription = Subscription(
        channels=["a"],
        probe=("a", b""),
        interval=1.0,
        patience=1.0,
        pause=(0.0, 0.1),
        received=lambda *_: False,
        lost=lost,
    )
    async with trio_asyncio.open_loop():
        link = RedisLink(cast("Any", away))
        with pytest.raises(RedisLost, match=r"^TimeoutError$"):
            await link.call(away.ask)
        async with trio.open_nursery() as listeners:
            listeners.start_soon(link.listen, subscription)
            with trio.fail_after(10):
                await heard.wait()
            listeners.cancel_scope.cancel()
    assert problems[0] == "TimeoutError"
