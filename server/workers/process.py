"""A worker as its supervisor sees it: one process, from its start to its exit code."""

import signal
import socket
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum

import structlog
import trio

from server.histogram import DELIVERY_BUCKETS
from server.workers.control import (
    Answer,
    AskHost,
    AskWorkers,
    Channel,
    Collect,
    FromWorker,
    Metrics,
    Question,
    Questions,
    Sample,
)

START_TIMEOUT = 30.0
"""Seconds until a worker must serve: imports take one, a database that is down takes five."""

LATENCY_WINDOW = 10.0
"""Seconds over which latencies are measured: longer than the simulator's four between two moves."""

COLLECT_TIMEOUT = 1.0
"""Seconds for a worker's metrics: a frozen one must not cost the others their page."""

EXIT_TIMEOUT = 5.0
"""Seconds a worker may live on without its control channel."""

WATCH_INTERVAL = 0.5
"""Seconds of one step in counting silence: if the machine stood still, only one step counts."""

BUCKETS = len(DELIVERY_BUCKETS) + 1
"""Buckets of delivery latencies, with the one above the last bound."""

log = structlog.get_logger()


class Stage(Enum):
    """The value is the metric's label."""

    STARTING = "starting"
    SERVING = "serving"
    RETIRING = "retiring"


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How a worker is started. `command` gets its number and the descriptor of the control channel.

    A worker that reports nothing for `silence` seconds is killed.
    """

    command: Callable[[int, int], Sequence[str]]
    environment: Mapping[str, str]
    silence: float


@dataclass(eq=False)
class Worker:
    """Made by `start_worker`. `sample` is its newest report, `delivered` are its latest latencies.

    `changed` is called at each report, `asked` when it asks for something of all workers.
    """

    number: int
    process: trio.Process
    channel: Channel[FromWorker]
    silence: float
    changed: Callable[[], None]
    asked: Callable[["Worker", AskHost | AskWorkers], None]
    stage: Stage = Stage.STARTING
    sample: Sample | None = None
    started_at: float = field(default_factory=trio.current_time)
    delivered: deque[tuple[float, list[int]]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self._questions: Questions[FromWorker, str] = Questions(self.channel, COLLECT_TIMEOUT)
        self._patience = START_TIMEOUT

    async def run(self) -> int:
        """Listen until the process ends. Return its exit code. Cancelling kills the process."""
        try:
            async with trio.open_nursery() as tasks:
                tasks.start_soon(self._watch, tasks.cancel_scope)
                async for message in self.channel.receive():
                    self._on_message(message)
                self._patience = EXIT_TIMEOUT
                await self.process.wait()
                tasks.cancel_scope.cancel()
        finally:
            self.channel.close()
            self.signal(signal.SIGKILL)
            # The kernel does not let this wait long.
            with trio.CancelScope(shield=True):
                code = await self.process.wait()
        return code

    async def _watch(self, listening: trio.CancelScope) -> None:
        while self._patience > 0:
            await trio.sleep(WATCH_INTERVAL)
            self._patience -= WATCH_INTERVAL
        # The kernel would go on giving it connections.
        log.error("worker is silent", worker=self.number)
        listening.cancel()

    def signal(self, number: int) -> None:
        """Send a signal. Harmless if the process has ended."""
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def collect(self) -> str | None:
        """Return its metrics; None if it does not answer in time, or could not make them."""
        return await self._ask(Collect) or None

    async def ask(self, text: str) -> str | None:
        """Return its answer to another worker's question; None if it does not answer in time."""
        return await self._ask(lambda number: Question(number, text))

    async def _ask(self, question: Callable[[int], Collect | Question]) -> str | None:
        try:
            return await self._questions.ask(question)
        except (trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError):
            return None

    def _on_message(self, message: FromWorker) -> None:
        match message:
            case Sample():
                self._on_sample(message)
            case Metrics(number, text) | Answer(number, text):
                self._questions.answer(number, text)
            case AskHost() | AskWorkers():
                self.asked(self, message)

    def _on_sample(self, sample: Sample) -> None:
        now = trio.current_time()
        self._patience = self.silence
        self.sample = sample
        # A worker of another version may count by other buckets, which say nothing here.
        counts = sample.delivered if len(sample.delivered) == BUCKETS else [0] * BUCKETS
        self.delivered.append((now, counts))
        while self.delivered[0][0] < now - LATENCY_WINDOW:
            self.delivered.popleft()
        if self.stage is Stage.STARTING:
            self.stage = Stage.SERVING
            log.info("worker serves", worker=self.number, after=round(self.age, 1))
        self.changed()

    @property
    def ended(self) -> bool:
        """Whether the process has ended."""
        return self.process.returncode is not None

    @property
    def places(self) -> int:
        """Places taken, as last reported."""
        return self.sample.places if self.sample else 0

    @property
    def room(self) -> int:
        """Free places, as last reported."""
        return self.sample.capacity - self.sample.places if self.sample else 0

    @property
    def age(self) -> float:
        """Seconds since its start."""
        return trio.current_time() - self.started_at


async def start_worker(
    number: int,
    launch: Launch,
    changed: Callable[[], None],
    asked: Callable[[Worker, AskHost | AskWorkers], None],
) -> Worker:
    """Start a worker in its own process group: a terminal's Ctrl-C is for the supervisor only."""
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            process = await trio.lowlevel.open_process(
                [*launch.command(number, theirs.fileno())],
                env=launch.environment,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                process_group=0,
            )
        except BaseException:
            ours.close()
            raise
    log.info("worker started", worker=number, pid=process.pid)
    return Worker(number, process, Channel(ours, FromWorker), launch.silence, changed, asked)
