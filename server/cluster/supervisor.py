"""The supervisor: keeps a number of workers running, and hands signals on to them.

It serves nobody itself. Each worker binds the same ports (SO_REUSEPORT) and the kernel spreads
connections over those that listen, so the supervisor is in no one's way, and its own death costs no
client anything but a reconnection: workers end with it.
"""

import signal
from collections.abc import Callable
from itertools import count

import structlog
import trio

from server.cluster.process import Launch, Stage, Worker, start_worker

FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0
"""Seconds until a worker that ended by itself is started anew, doubled each time it ends early."""

EARLY = 60.0
"""Seconds; a worker that lived longer did not end of what the one before it ended of."""

STOP_TIMEOUT = 9.5
"""Seconds from the first signal until workers are killed: they stop in nine; ten are promised."""

USAGE_ERROR = 2
"""Exit code of a worker that cannot be started as it is configured."""

log = structlog.get_logger()


class Supervisor:
    """Owns the workers, by number. `run` is called once."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self._keepers: trio.Nursery
        self._conducting = trio.CancelScope()
        self._changed = trio.Event()
        self._stopping = trio.Event()
        self._started = False
        self._exit_code = 0
        self._numbers: set[int] = set()
        self.workers: dict[int, Worker] = {}

    async def run(self, size: int, on_started: Callable[[], None]) -> int:
        """Run `size` workers until SIGINT or SIGTERM; the exit code.

        `on_started` is called once all of them serve. A second signal ends them at once.
        """
        async with trio.open_nursery() as tasks:
            await tasks.start(self._take_signals)
            tasks.start_soon(self._enforce_stop)
            async with trio.open_nursery() as self._keepers:
                self._keepers.start_soon(self._conduct, size, on_started)
            tasks.cancel_scope.cancel()
        log.info("stopped")
        return self._exit_code

    async def _conduct(self, size: int, on_started: Callable[[], None]) -> None:
        with self._conducting:
            # One alone first: what is wrong with the configuration is then said once.
            await self._serving(self._add())
            self._started = True
            for number in [self._add() for _ in range(size - 1)]:
                await self._serving(number)
            log.info("started", workers=size)
            on_started()

    def _add(self) -> int:
        """Start a worker; its number is the smallest free one: metrics' labels then stay few."""
        number = next(each for each in count(1) if each not in self._numbers)
        self._numbers.add(number)
        self._keepers.start_soon(self._keep, number)
        return number

    async def _keep(self, number: int) -> None:
        """Run a worker, and another in its place whenever it ends without having been told to."""
        delay = FIRST_DELAY
        while not self._stopping.is_set():
            started_at = trio.current_time()
            try:
                code = await self._run_worker(number)
            except OSError as error:  # no more processes, no memory
                log.error("worker cannot be started", worker=number, problem=str(error))
            else:
                if self._is_over(code):
                    break
                log.error("worker ended", worker=number, **describe_exit(code))
            if trio.current_time() > started_at + EARLY:
                delay = FIRST_DELAY
            log.info("worker is started anew", worker=number, after=delay)
            with trio.move_on_after(delay):
                await self._stopping.wait()
            delay = min(2 * delay, LONGEST_DELAY)
        self._numbers.remove(number)

    async def _run_worker(self, number: int) -> int:
        """One process from its start to its exit code. Errors: OSError if it cannot be started."""
        worker = await start_worker(number, self._launch, self._on_change)
        self.workers[number] = worker
        try:
            if self._stopping.is_set():  # it was not there yet when the others were told
                worker.signal(signal.SIGTERM)
            return await worker.run()
        finally:
            del self.workers[number]
            self._on_change()

    def _is_over(self, code: int) -> bool:
        """Whether a worker that ended with `code` has no successor."""
        if self._stopping.is_set():
            if code not in (0, -signal.SIGTERM):  # the latter: it had not begun to serve
                self._exit_code = self._exit_code or 1
            return True
        if code == USAGE_ERROR and not self._started:
            self._exit_code = USAGE_ERROR  # it has said why
            self._stop()
            return True
        return False

    async def _serving(self, number: int) -> None:
        """Wait until a worker serves."""
        while number not in self.workers or self.workers[number].stage is not Stage.SERVING:
            await self._changed.wait()

    def _on_change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _take_signals(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGUSR1) as signals:
            task_status.started()
            async for number in signals:
                if number == signal.SIGUSR1:
                    self._signal(number)
                elif self._stopping.is_set():
                    self._exit_code = 128 + number
                    self._signal(signal.SIGKILL)
                else:
                    log.info("stopping", signal=signal.Signals(number).name)
                    self._stop()

    def _stop(self) -> None:
        self._stopping.set()
        self._conducting.cancel()
        self._signal(signal.SIGTERM)

    async def _enforce_stop(self) -> None:
        await self._stopping.wait()
        await trio.sleep(STOP_TIMEOUT)
        log.error("workers are killed", reason="clean stop took too long")
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        for worker in self.workers.values():
            worker.signal(number)


def describe_exit(code: int) -> dict[str, object]:
    """An exit code for the log, the signal by its name."""
    return {"signal": signal.Signals(-code).name} if code < 0 else {"code": code}
