"""One thread for blocking calls to an object that only its creating thread may use."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import trio

from server.store.catalogue import StoreUnavailable

WAITING_CALLS = 64
"""Calls in the queue. The longest take some 50 ms. One more is refused at once."""

T = TypeVar("T")


class OwnThread:
    """Runs calls in order. Its creator must close it."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(1, name)
        self._waiting = 0

    async def run(self, function: Callable[[], T]) -> T:
        """Return or raise as `function` does.

        If the caller is cancelled, a call that has begun runs to its end and its result is lost. A
        call that has not begun never does. Errors: StoreUnavailable.
        """
        if self._waiting >= WAITING_CALLS:
            raise StoreUnavailable("too many calls are waiting")
        done, token = trio.Event(), trio.lowlevel.current_trio_token()
        call = self._executor.submit(function)
        self._waiting += 1

        def ended(_: Future[T]) -> None:
            token.run_sync_soon(self._leave, done)

        call.add_done_callback(ended)
        try:
            await done.wait()
        finally:
            call.cancel()
        return call.result()

    def close(self) -> None:
        """End the thread after its current call, without waiting for that."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _leave(self, done: trio.Event) -> None:
        self._waiting -= 1
        done.set()
