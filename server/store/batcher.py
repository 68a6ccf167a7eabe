"""Gathers keys that arrive one by one and handles them in batches."""

from collections.abc import Awaitable, Callable, Iterable, Sequence

import structlog
import trio

log = structlog.get_logger()

Work = Callable[[Sequence[str]], Awaitable[None]]


class Batcher:
    """Puts each added key into exactly one batch.

    Arguments:
        work: handles a batch. If it raises, the error is logged and `failed` gets the batch.
        window: seconds to wait for more keys after the first one; 0 to wait for none.
        max_keys: the most keys of one batch.
        max_running: batches handled at a time. Meanwhile keys gather for the next batch.
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
        """Queue `keys` for the next batch."""
        self._keys |= dict.fromkeys(keys)
        if self._keys:
            self._wake.set()

    async def run(self) -> None:
        """Handle batches until cancelled."""
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
