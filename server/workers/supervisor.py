"""The supervisor: keeps a number of workers running, rolls them, and hands signals on to them.

It serves nobody itself. Each worker binds the same ports (SO_REUSEPORT) and the kernel spreads
connections over those that listen, so the supervisor is in no one's way, and its own death costs no
client anything but a reconnection: workers end with it.
"""

import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from itertools import count

import structlog
import trio

from server.process.signals import Signals
from server.workers.control import AskHost, HostMetrics
from server.workers.host_metrics import HostPage
from server.workers.process import Launch, Worker
from server.workers.restarter import WorkerRestarter
from server.workers.retirement import retire
from server.workers.scaler import MAXIMUM, Decision, Load, Scaler, measure

LOOK_INTERVAL = 1.0
"""Seconds between two looks at the load: as often as workers report."""

STOP_TIMEOUT = 9.5
"""Seconds from the first signal until workers are killed, with the default DRAIN_DELAY: they stop in
nine; ten are promised.
"""

REAP_TIME = 0.25
"""Seconds for the event loop to see that killed workers have ended; then the supervisor ends."""

CLEAN_ENDS = (None, 0, -signal.SIGTERM, 128 + signal.SIGTERM)
"""Exit codes of workers that are told to stop; the last two if they had not begun to serve."""

log = structlog.get_logger()


class Supervisor:
    """Owns the workers, by number. `run` is called once. `drain_rate`: clients that a worker which
    retires sends away in a second. With a `scaler`, it decides how many workers there are. Workers are
    killed `stop_timeout` seconds after the first signal.
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
        self.scaler = scaler
        self.load: Load | None = None
        self.decisions: Counter[Decision] = Counter()
        self._decision: Decision | None = None
        self.rolls: Counter[tuple[str]] = Counter()
        self._gone_restarts = 0
        self._page = HostPage(self)
        self._drain_rate = drain_rate
        self._tasks: trio.Nursery
        self._conducting = trio.CancelScope()
        self._changed = trio.lowlevel.ParkingLot()
        self._stopping = trio.Event()
        self._roll_wanted = False
        self._exit_code = 0
        self.restarters: dict[int, WorkerRestarter] = {}

    async def run(self, size: int, on_started: Callable[[], None]) -> int:
        """Run `size` workers until SIGINT or SIGTERM; the exit code.

        `on_started` is called once all of them serve. A second signal ends them at once; at SIGHUP
        each is replaced by a new one.
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
            # One alone first: what is wrong with the configuration is then said once.
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
                elif self.scaler:
                    await self._scale(self.scaler)

    async def _start(self, size: int) -> bool:
        """Whether so many more workers serve; else the exit code is that of one that does not."""
        for restarter in [self._add() for _ in range(size)]:
            if not await self._serves(restarter):
                code = restarter.exit_code or 1
                self._exit_code = code if code > 0 else 1
                return False
        return True

    async def _roll(self) -> None:
        """Replace each worker by a new one, which reads the settings anew, and is there first."""
        log.info("rolling", workers=len(self.restarters))
        for old in [each for each in self.restarters.values() if not each.leaving]:
            new = self._add()
            if not await self._serves(new):
                log.error("rolling ended: a new worker does not serve", worker=new.number)
                self.rolls["failed",] += 1
                return
            await self._retire(old)
        self.rolls["done",] += 1
        if self.scaler:
            self.scaler.changed(trio.current_time())
        log.info("rolled", workers=len(self.restarters))

    async def _scale(self, scaler: Scaler) -> None:
        """Look at the load; start a worker, or have the youngest leave, if that is to be."""
        serving = [each.serving for each in self.restarters.values() if each.serving]
        staying = sum(not each.leaving for each in self.restarters.values())
        if not serving:
            return  # all of them crashed
        self.load = measure(serving)
        leaving = staying < len(self.restarters)
        decision = scaler.look(trio.current_time(), staying, self.load, leaving=leaving)
        self.decisions[decision] += 1
        before, self._decision = self._decision, decision
        load = {name: round(value, 3) for name, value in self.load._asdict().items()}
        if decision == MAXIMUM != before:
            log.warning("too much load for so many workers", workers=staying, **load)
        if decision.action == "hold":
            return
        log.info("scaling", action=decision.action, reason=decision.reason, workers=staying, **load)
        if decision.action == "down":
            youngest = max(serving, key=lambda worker: worker.started_at)
            self._tasks.start_soon(self._retire, self.restarters[youngest.number])
        elif not await self._serves(self._add()):
            log.error("scaling failed: the new worker does not serve")

    async def _retire(self, restarter: WorkerRestarter) -> None:
        """Have a worker leave without loss, and wait until it has."""
        if worker := restarter.serving:
            restarter.leave()
            await retire(worker, self._room, self._drain_rate)
        else:
            restarter.stop()
        while not restarter.over:
            await self._changed.park()

    @property
    def restarts(self) -> int:
        """How often a process took the place of one that ended by itself."""
        return self._gone_restarts + sum(each.restarts for each in self.restarters.values())

    def _room(self) -> int:
        """Free places of all who stay."""
        return sum(each.serving.room for each in self.restarters.values() if each.serving)

    def _add(self) -> WorkerRestarter:
        """Start a worker; its number is the smallest free one: metrics' labels then stay few."""
        number = next(each for each in count(1) if each not in self.restarters)
        restarter = self.restarters[number] = WorkerRestarter(
            number, self._launch, self._changed, self._on_asked
        )
        self._tasks.start_soon(self._keep, restarter)
        return restarter

    def _on_asked(self, worker: Worker, question: AskHost) -> None:
        self._tasks.start_soon(self._answer, worker, question)

    async def _answer(self, worker: Worker, question: AskHost) -> None:
        """Give a worker that is scraped the metrics it wants."""
        asked_of = question.worker
        page = await (self._page.render_one(asked_of) if asked_of else self._page.render())
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await worker.channel.send(HostMetrics(question.id, page))

    async def _keep(self, restarter: WorkerRestarter) -> None:
        await restarter.run()
        self._gone_restarts += restarter.restarts
        del self.restarters[restarter.number]
        if self._stopping.is_set() and restarter.exit_code not in CLEAN_ENDS:
            self._exit_code = self._exit_code or 1

    async def _serves(self, restarter: WorkerRestarter) -> bool:
        """Wait until it serves; False if it ended instead."""
        while not (restarter.over or restarter.serving):
            await self._changed.park()
        return not restarter.over

    async def _take_signals(self, signals: Signals) -> None:
        async for number in signals.received:
            if number == signal.SIGUSR1:
                for restarter in self.restarters.values():
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
        for restarter in self.restarters.values():
            restarter.stop()

    def _end_workers(self, reason: str) -> None:
        """Kill all workers. Called in a thread, as the event loop may be what hangs."""
        log.error("workers are killed", reason=reason)
        for restarter in list(self.restarters.values()):
            restarter.kill()
        time.sleep(REAP_TIME)
