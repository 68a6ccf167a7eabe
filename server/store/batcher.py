"""Gathers keys that come one by one and works on many of them at once."""

from collections.abc import Awaitable, Callable, Iterable, Sequence

import structlog
import trio

log = structlog.get_logger()

Work = Callable[[Sequence[str]], Awaitable[None]]


class Batcher:
    """Each key that is added is in exactly one batch.

    Arguments:
        work: what is done with a batch; a failure of it is logged and given to `failed`.
        window: seconds to wait for more keys after the first one; 0 for what comes at once.
        max_keys: keys of one batch.
        max_running: batches worked on at a time; meanwhile keys gather for the next.
    """

    def __init__(
        self,
        work: Work,
        failed: Callable[[Sequence[str]], None],
        *,
        window: float,
        max_keys: int,
        max_running: int,
    ) -> None:
        self._work = work
        self._failed = failed
        self._window = window
        self._max_keys = max_keys
        self._slots = trio.Semaphore(max_running)
        self._keys: dict[str, None] = {}
        self._wake = trio.Event()

    def add(self, keys: Iterable[str]) -> None:
        """Have `keys` worked on soon."""
        self._keys |= dict.fromkeys(keys)
        if self._keys:
            self._wake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        async with trio.open_nursery() as tasks:
            while True:
                await self._wake.wait()
                await trio.sleep(self._window)
                await self._slots.acquire()
                batch = list(self._keys)[: self._max_keys]
                for key in batch:
                    del self._keys[key]
                if not self._keys:
                    self._wake = trio.Event()
                tasks.start_soon(self._work_on, batch)

    async def _work_on(self, batch: Sequence[str]) -> None:
        try:
            await self._work(batch)
        except Exception:
            log.exception("a batch failed", keys=len(batch))
            self._failed(batch)
        finally:
            self._slots.release()
