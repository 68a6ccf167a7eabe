"""Runs a driver's calls in tasks of the store, so that each caller has a deadline of its own.

Drivers do not keep deadlines: with a frozen Postgres, asyncpg needed six seconds for a timeout of one.
Here the caller gives up in time, and the call ends by itself.
"""

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import outcome
import trio

from server.store.catalogue import StoreUnavailable

T = TypeVar("T")


class DeadlineCalls:
    """Allows `limit` calls in progress; one more is refused at once."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_progress = 0
        self._tasks: trio.Nursery

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the calls until cancelled."""
        async with trio.open_nursery() as self._tasks:
            task_status.started()
            await trio.sleep_forever()

    async def call(self, timeout: float, function: Callable[[], Awaitable[T]]) -> T:  # noqa: ASYNC109 (the call itself is not cancelled)
        """Return or raise as `function` does, or raise StoreUnavailable after `timeout` seconds."""
        if self.in_progress >= self.limit:
            raise StoreUnavailable("too many calls are waiting for an answer")
        call = _Call(function)
        self.in_progress += 1
        self._tasks.start_soon(self._carry_out, call)
        with trio.move_on_after(timeout):
            await call.done.wait()
        if call.result is None:
            raise StoreUnavailable(f"no answer in {timeout:g} s")
        return call.result.unwrap()

    async def _carry_out(self, call: "_Call[T]") -> None:
        try:
            call.result = await outcome.acapture(call.function)
        finally:
            self.in_progress -= 1
        # A cancellation belongs to the nursery, not to the caller.
        if isinstance(call.result, outcome.Error) and not isinstance(call.result.error, Exception):
            call.result.unwrap()
        call.done.set()


class _Call(Generic[T]):
    def __init__(self, function: Callable[[], Awaitable[T]]) -> None:
        self.function = function
        self.done = trio.Event()
        self.result: outcome.Outcome[T] | None = None
