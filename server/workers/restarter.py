"""Keeps one worker running: whenever its process ends by itself, another takes its place."""

import signal
from collections.abc import Callable

import structlog
import trio

from server.workers.control import AskHost
from server.workers.process import Launch, Stage, Worker, start_worker

FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0
"""Seconds until a process that ended by itself is replaced, doubled each time it ends early."""

EARLY = 60.0
"""Seconds; what lived longer did not end of what the one before it ended of."""

log = structlog.get_logger()


class WorkerRestarter:
    """`number` names the worker whichever process it is; `changed` wakes those who wait for changes,
    `asked` is called when a process wants the metrics of all.

    `worker` is the process that there is now, `exit_code` that of the last one once `run` is over.
    """

    def __init__(
        self,
        number: int,
        launch: Launch,
        changed: trio.lowlevel.ParkingLot,
        asked: Callable[[Worker, AskHost], None],
    ) -> None:
        self.number = number
        self._asked = asked
        self._launch = launch
        self._changed = changed
        self._proven = False
        self.leaving = False
        self.over = False
        self.worker: Worker | None = None
        self.exit_code: int | None = None
        self.restarts = 0

    @property
    def serving(self) -> Worker | None:
        """The process, if it serves and is to go on."""
        worker = self.worker
        return worker if worker and worker.stage is Stage.SERVING and not self.leaving else None

    async def run(self) -> None:
        """Run one process after another until told to stop, or the first never got to serve."""
        delay = FIRST_DELAY
        while not self.leaving:
            started_at = trio.current_time()
            try:
                self.exit_code = await self._run_process()
            except OSError as error:  # no more processes, no memory
                log.error("worker cannot be started", worker=self.number, problem=str(error))
                self.exit_code = None
            if self.leaving:
                break
            how = describe_exit(self.exit_code)
            if not self._proven:
                log.warning("worker ended before it served", worker=self.number, **how)
                break
            log.error("worker ended", worker=self.number, **how)
            self.exit_code = None
            if trio.current_time() > started_at + EARLY:
                delay = FIRST_DELAY
            log.info("worker is started anew", worker=self.number, after=delay)
            self.restarts += 1
            with trio.move_on_after(delay):
                while not self.leaving:
                    await self._changed.park()
            delay = min(2 * delay, LONGEST_DELAY)
        self.over = True
        self._changed.unpark_all()

    def stop(self) -> None:
        """Have the process end as a server does that is stopped, and none take its place."""
        self.leave()
        if self.worker:
            self.worker.signal(signal.SIGTERM)

    def leave(self) -> None:
        """Have no process take the place of the one that there is."""
        self.leaving = True
        self._changed.unpark_all()

    def kill(self) -> None:
        """End the process at once."""
        if self.worker:
            self.worker.signal(signal.SIGKILL)

    async def _run_process(self) -> int:
        """One process from its start to its exit code. Errors: OSError if it cannot be started."""
        self.worker = await start_worker(self.number, self._launch, self._on_change, self._asked)
        try:
            if self.leaving:  # it was not there yet when the others were told
                self.worker.signal(signal.SIGTERM)
            return await self.worker.run()
        finally:
            self.worker = None
            self._changed.unpark_all()

    def _on_change(self) -> None:
        self._proven = True
        self._changed.unpark_all()


def describe_exit(code: int | None) -> dict[str, object]:
    """An exit code for the log, a signal by its name."""
    return {"signal": signal.Signals(-code).name} if code and code < 0 else {"code": code}
