"""Restarts one worker: whenever its process ends by itself, a new one takes its place."""

import signal
from collections.abc import Callable

import structlog
import trio

from server.workers.control import AskHost, AskWorkers
from server.workers.process import Launch, Stage, Worker, start_worker
from server.workers.stats import SupervisorStats

FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0
"""Seconds until a process that ended by itself is replaced; doubled if the new one ends early."""

EARLY = 60.0
"""Seconds. If a process lived longer, it probably ended for another reason than the one before."""

log = structlog.get_logger()


class WorkerRestarter:
    """`worker` is the present process; `exit_code` is the last one's, once `run` is `over`.

    Arguments:
        number: names the worker and stays the same for all its processes.
        changed: is woken at each change.
        asked: called when a process asks for something of all workers.
        stats: counts the restarts.
    """

    def __init__(
        self,
        number: int,
        launch: Launch,
        changed: trio.lowlevel.ParkingLot,
        asked: Callable[[Worker, AskHost | AskWorkers], None],
        stats: SupervisorStats,
    ) -> None:
        self.number = number
        self._asked = asked
        self._launch = launch
        self._changed = changed
        self._stats = stats
        self._proven = False
        self.leaving = False
        self.over = False
        self.worker: Worker | None = None
        self.exit_code: int | None = None

    @property
    def serving(self) -> Worker | None:
        """The process, if it serves and is not about to leave."""
        worker = self.worker
        return worker if worker and worker.stage is Stage.SERVING and not self.leaving else None

    async def run(self) -> None:
        """Run one process after another until told to stop or until one ends before any has served."""
        delay = FIRST_DELAY
        while not self.leaving:
            started_at = trio.current_time()
            try:
                self.exit_code = await self._run_process()
            # The machine has no more processes or no memory.
            except OSError as error:
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
            self._stats.restarts += 1
            with trio.move_on_after(delay):
                while not self.leaving:
                    await self._changed.park()
            delay = min(2 * delay, LONGEST_DELAY)
        self.over = True
        self._changed.unpark_all()

    def stop(self) -> None:
        """Stop the process as a server is stopped, and start no other one."""
        self.leave()
        if self.worker:
            self.worker.signal(signal.SIGTERM)

    def leave(self) -> None:
        """Start no other process after the present one."""
        self.leaving = True
        self._changed.unpark_all()

    def kill(self) -> None:
        """End the process at once."""
        if self.worker:
            self.worker.signal(signal.SIGKILL)

    async def _run_process(self) -> int:
        """Start a process and return its exit code. Errors: OSError if it cannot be started."""
        self.worker = await start_worker(self.number, self._launch, self._on_change, self._asked)
        try:
            # It did not exist yet when the others were told.
            if self.leaving:
                self.worker.signal(signal.SIGTERM)
            return await self.worker.run()
        finally:
            self.worker = None
            self._changed.unpark_all()

    def _on_change(self) -> None:
        self._proven = True
        self._changed.unpark_all()


def describe_exit(code: int | None) -> dict[str, object]:
    """Return an exit code as fields of the log. A signal is given by its name, if it has one."""
    if code is None or code >= 0:
        return {"code": code}
    try:
        return {"signal": signal.Signals(-code).name}
    # Most real-time signals have a number only.
    except ValueError:
        return {"signal": str(-code)}
