"""One thread for what blocks, and may only be used by the thread that made it."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import trio

from server.store.catalogue import StoreUnavailable

WAITING_CALLS = 64
"""DeadlineCalls in line, of which the longest take some 50 ms; one more is refused at once."""

T = TypeVar("T")


class OwnThread:
    """Carries out calls in order. Resource handling: whoever makes it closes it."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(1, name)
        self._in_line = 0

    async def run(self, function: Callable[[], T]) -> T:
        """What `function` returns or raises. A cancelled call that has begun goes on to its end,
        unheard; one that has not never does. Errors: StoreUnavailable.
        """
        if self._in_line >= WAITING_CALLS:
            raise StoreUnavailable("too many calls are waiting")
        done, token = trio.Event(), trio.lowlevel.current_trio_token()
        call = self._executor.submit(function)
        self._in_line += 1

        def ended(_: Future[T]) -> None:
            token.run_sync_soon(self._leave, done)

        call.add_done_callback(ended)
        try:
            await done.wait()
        finally:
            call.cancel()
        return call.result()

    def close(self) -> None:
        """End the thread once the call that it is at is over; waits for nothing."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _leave(self, done: trio.Event) -> None:
        self._in_line -= 1
        done.set()
