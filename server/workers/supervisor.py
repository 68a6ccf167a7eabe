"""The supervisor: runs a number of workers, replaces them one by one, and passes signals on.

It serves no client itself. Each worker binds the same ports (SO_REUSEPORT), and the kernel spreads
connections over the workers that listen. Workers end with their supervisor; clients then reconnect.
"""

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count

import structlog
import trio

from server.process.signals import Signals
from server.workers.control import AskHost, AskWorkers, HostMetrics, WorkersAnswers
from server.workers.host_metrics import HostPage
from server.workers.process import Launch, Worker
from server.workers.restarter import WorkerRestarter
from server.workers.retirement import retire
from server.workers.scaler import MAXIMUM, Decision, Scaler, measure
from server.workers.stats import SupervisorStats

LOOK_INTERVAL = 1.0
"""Seconds between two looks at the load: the interval at which workers report."""

STOP_TIMEOUT = 9.5
"""Seconds from the first signal until workers are killed, with the default DRAIN_DELAY. They stop in
nine; ten are promised.
"""

REAP_TIME = 0.25
"""Seconds for the event loop to notice that the killed workers have ended. Then the supervisor ends."""

CLEAN_ENDS = (None, 0, -signal.SIGTERM, 128 + signal.SIGTERM)
"""Exit codes of workers that were told to stop. The last two are of workers that did not serve yet."""

log = structlog.get_logger()


class Supervisor:
    """Owns the workers, by number. `run` is called once.

    Arguments:
        drain_rate: clients a second that a retiring worker sends away.
        scaler: decides how many workers there are; without one the number stays.
        stop_timeout: seconds from the first signal until workers are killed.
    """

    def __init__(
        self,
        launch: Launch,
        drain_rate: int,
        scaler: Scaler | None = None,
        stop_timeout: float = STOP_TIMEOUT,
    ) -> None:
        self._launch = launch
        self._stop_timeout = stop_timeout
        self._scaler = scaler
        self._decision: Decision | None = None
        self._stats = SupervisorStats()
        self._restarters: dict[int, WorkerRestarter] = {}
        self._page = HostPage(self._restarters, self._stats)
        self._drain_rate = drain_rate
        self._tasks: trio.Nursery
        self._conducting = trio.CancelScope()
        self._changed = trio.lowlevel.ParkingLot()
        self._stopping = trio.Event()
        self._roll_wanted = False
        self._exit_code = 0

    async def run(self, size: int, on_started: Callable[[], None]) -> int:
        """Run `size` workers until SIGINT or SIGTERM. Return the exit code.

        `on_started` is called once all of them serve. A second signal ends them at once. At SIGHUP a
        new process replaces each of them.
        """
        async with trio.open_nursery() as around:
            around.start_soon(self._take_signals, Signals(self._stop_timeout, self._end_workers))
            async with trio.open_nursery() as self._tasks:
                self._tasks.start_soon(self._conduct, size, on_started)
            around.cancel_scope.cancel()
        log.info("stopped")
        return self._exit_code

    async def _conduct(self, size: int, on_started: Callable[[], None]) -> None:
        with self._conducting:
            # One alone first: if the configuration is wrong, only one worker says so.
            if not (await self._start(1) and await self._start(size - 1)):
                self._stop()
                return
            log.info("started", workers=size)
            on_started()
            while True:
                with trio.move_on_after(LOOK_INTERVAL):
                    while not self._roll_wanted:
                        await self._changed.park()
                if self._roll_wanted:
                    self._roll_wanted = False
                    await self._roll()
                elif self._scaler:
                    await self._scale(self._scaler)

    async def _start(self, size: int) -> bool:
        """Start `size` more workers. Return whether all serve; if one ends, take its exit code over."""
        for restarter in [self._add() for _ in range(size)]:
            if not await self._serves(restarter):
                code = restarter.exit_code or 1
                self._exit_code = code if code > 0 else 1
                return False
        return True

    async def _roll(self) -> None:
        """Replace each worker by a new one, which reads the settings anew and serves first."""
        log.info("rolling", workers=len(self._restarters))
        for old in [each for each in self._restarters.values() if not each.leaving]:
            new = self._add()
            if not await self._serves(new):
                log.error("rolling ended: a new worker does not serve", worker=new.number)
                self._stats.rolls["failed"] += 1
                return
            await self._retire(old)
        self._stats.rolls["done"] += 1
        if self._scaler:
            self._scaler.changed(trio.current_time())
        log.info("rolled", workers=len(self._restarters))

    async def _scale(self, scaler: Scaler) -> None:
        """Look at the load. Start a worker or have the youngest leave, as the scaler decides."""
        serving = [each.serving for each in self._restarters.values() if each.serving]
        staying = sum(not each.leaving for each in self._restarters.values())
        if not serving:
            # All of them crashed.
            return
        load = self._stats.load = measure(serving)
        leaving = staying < len(self._restarters)
        decision = scaler.look(trio.current_time(), staying, load, leaving=leaving)
        self._stats.decisions[decision] += 1
        before, self._decision = self._decision, decision
        figures = {name: round(value, 3) for name, value in load._asdict().items()}
        if decision == MAXIMUM != before:
            log.warning("too much load for so many workers", workers=staying, **figures)
        if decision.action == "hold":
            return
        log.info("scaling", **decision._asdict(), workers=staying, **figures)
        if decision.action == "down":
            youngest = max(serving, key=lambda worker: worker.started_at)
            self._tasks.start_soon(self._retire, self._restarters[youngest.number])
        elif not await self._serves(self._add()):
            log.error("scaling failed: the new worker does not serve")

    async def _retire(self, restarter: WorkerRestarter) -> None:
        """Have a worker send its clients away and end. Wait until it has."""
        if worker := restarter.serving:
            restarter.leave()
            await retire(worker, self._room, self._drain_rate)
        else:
            restarter.stop()
        while not restarter.over:
            await self._changed.park()

    def _room(self) -> int:
        """Return the number of free places of the workers that stay."""
        return sum(each.serving.room for each in self._restarters.values() if each.serving)

    def _add(self) -> WorkerRestarter:
        """Start a worker. Its number is the smallest free one: metrics then have few labels."""
        number = next(each for each in count(1) if each not in self._restarters)
        restarter = self._restarters[number] = WorkerRestarter(
            number, self._launch, self._changed, self._on_asked, self._stats
        )
        self._tasks.start_soon(self._run_worker, restarter)
        return restarter

    def _on_asked(self, worker: Worker, question: AskHost | AskWorkers) -> None:
        self._tasks.start_soon(self._answer, worker, question)

    async def _answer(self, worker: Worker, question: AskHost | AskWorkers) -> None:
        """Send the metrics or the answers that a worker asks for."""
        answer: HostMetrics | WorkersAnswers
        if isinstance(question, AskWorkers):
            answer = WorkersAnswers(question.id, await self._page.ask(question.text))
        else:
            name = question.worker
            page = await (self._page.render_one(name) if name else self._page.render())
            answer = HostMetrics(question.id, page)
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await worker.channel.send(answer)

    async def _run_worker(self, restarter: WorkerRestarter) -> None:
        await restarter.run()
        del self._restarters[restarter.number]
        if self._stopping.is_set() and restarter.exit_code not in CLEAN_ENDS:
            self._exit_code = self._exit_code or 1

    async def _serves(self, restarter: WorkerRestarter) -> bool:
        """Wait until the worker serves. Return False if it ended instead."""
        while not (restarter.over or restarter.serving):
            await self._changed.park()
        return not restarter.over

    async def _take_signals(self, signals: Signals) -> None:
        async for number in signals.received:
            if number == signal.SIGUSR1:
                for restarter in self._restarters.values():
                    if restarter.serving:
                        restarter.serving.signal(number)
            elif number == signal.SIGHUP:
                self._roll_wanted = True
                self._changed.unpark_all()
            elif self._stopping.is_set():
                self._exit_code = 128 + number
            else:
                log.info("stopping", signal=signal.Signals(number).name)
                self._stop()

    def _stop(self) -> None:
        self._stopping.set()
        self._conducting.cancel()
        for restarter in self._restarters.values():
            restarter.stop()

    def _end_workers(self, reason: str) -> None:
        """Kill all workers. Called in a thread, as the event loop may hang."""
        log.error("workers are killed", reason=reason)
        for restarter in list(self._restarters.values()):
            restarter.kill()
        time.sleep(REAP_TIME)
