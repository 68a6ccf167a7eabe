"""What all scenarios do: open a target, connect, measure for a while, tell the common figures."""

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from random import Random
from time import monotonic

from bench.figures import Figure, Result, Unit
from bench.generator import Generator
from bench.schedule import Schedule
from bench.screen import progress
from bench.target import OwnServer, RunningServer, Target, TargetError

USER_CONNECTIONS = 100
"""Connections each user opens: what WS_MAX_CONNECTIONS_PER_USER allows by default."""

IN_FLIGHT = 64
"""Handshakes under way at once while connecting, where a scenario asks for no other pace."""

HOPELESS = 10
"""Failures, and not one success, after which connecting is given up."""

CONNECT_TIMEOUT = 120.0
"""Seconds without any progress until connecting is given up."""

STEP = 1.0
"""Seconds between two entries of the timeline and two moves of the progress bar."""

SETTLE = 1.0
"""Seconds for what is under way to arrive."""

SPARE_SECONDS = 15
"""What a schedule is longer than connecting and measuring take."""

SLOWEST_CONNECTS = 300
"""Handshakes a second that any machine does; schedules are long enough for that."""


@dataclass(kw_only=True, frozen=True)
class Options:
    """What the command line says; `rate` means what the scenario says it means."""

    connections: int
    duration: float
    rate: float
    url: str = ""
    token: str = ""
    secret: str = ""
    http: str = ""

    def open(
        self, schedule: Schedule | None = None, **variables: str
    ) -> AbstractContextManager[Target]:
        """The running server that was named, or one of our own with `schedule` as its feed."""
        if self.url:
            return RunningServer(self.url, self.token, self.secret, self.http)
        return OwnServer(schedule, **variables)

    def schedule(self, symbols: int, rate: float, *, together: bool = False) -> Schedule:
        """Long enough to connect and to measure."""
        seconds = self.connections / SLOWEST_CONNECTS + 2 * self.duration + SPARE_SECONDS
        return Schedule(symbols, rate, seconds, together=together)


@contextmanager
def open_generator(target: Target) -> Iterator[Generator]:
    """Clients for `target`. Nothing here makes cycles, and a collection would be a stall."""
    generator = Generator(target.url)
    gc.collect()
    gc.disable()
    try:
        yield generator
    finally:
        gc.enable()
        generator.close()


Choice = Callable[[int], str]
"""A connection's symbols by its number, comma-separated, and further parameters behind a `&`."""


def choose_some(symbols: list[str], count: int) -> Choice:
    """`count` of `symbols` at random, the same for a number every time."""
    return lambda number: ",".join(Random(number).sample(symbols, count))


def connect(
    generator: Generator,
    target: Target,
    count: int,
    choose: Choice,
    *,
    rate: float | None = None,
    in_flight: int = IN_FLIGHT,
    sample: int = 1,
    receive_buffer: int = 0,
    compressed: bool = False,
) -> float:
    """Open `count` connections and wait for the first message of each; the seconds that took.

    Arguments:
        rate: connections a second, whatever comes of them.
        in_flight: without a rate, how many may be waiting for their answer at once.
        sample: one in so many looks at what its messages say.
        receive_buffer: bytes, if not the kernel's default.
        compressed: offer compression.

    Errors: TargetError if nobody gets in, or nothing gets on any more.
    """
    limit = count if rate else in_flight
    start = last_progress = monotonic()
    first = generator.opened
    seen = 0
    with progress("connecting", count) as move:
        while True:
            opened = generator.opened - first
            due = min(count, int((monotonic() - start) * rate) + 1) if rate else count
            while opened < due and generator.pending < limit:
                user = f"bench{generator.opened // USER_CONNECTIONS}"
                query = target.query(user, choose(opened))
                sampled = opened % sample == 0
                generator.open(
                    query, sampled=sampled, receive_buffer=receive_buffer, compressed=compressed
                )
                opened += 1
            if generator.failed.total() > HOPELESS and not generator.answered:
                raise TargetError(
                    f"no connection succeeds: {generator.failed.most_common(1)[0][0]}"
                )
            done = opened - generator.pending
            if done == count:
                return monotonic() - start
            if done != seen:
                if done // 256 != seen // 256:
                    move(done)
                seen, last_progress = done, monotonic()
            elif monotonic() - last_progress > CONNECT_TIMEOUT:
                raise TargetError(f"{generator.pending} connections wait for an answer")
            generator.run_until(monotonic() + 0.002)


@dataclass
class Window:
    """What happened in a stretch of time. Shares are of one core, None where they cannot be read."""

    seconds: float
    frames: int
    bytes: int
    cpu_seconds: float | None
    busy: float
    peak: int | None

    @property
    def core(self) -> float | None:
        """The server's share of a core."""
        return None if self.cpu_seconds is None else self.cpu_seconds / self.seconds


class Meter:
    """Reads the clocks at both ends of a window. The generator's counts begin anew."""

    def __init__(self, target: Target, generator: Generator) -> None:
        self._target = target
        self._generator = generator
        generator.reset()
        self._cpu = target.cpu_seconds()
        self._used = own_cpu()
        self._start = monotonic()

    def read(self) -> Window:
        """The window from the beginning until now."""
        seconds = monotonic() - self._start
        busy = (own_cpu() - self._used) / seconds
        cpu = self._target.cpu_seconds()
        used = None if cpu is None or self._cpu is None else cpu - self._cpu
        generator = self._generator
        return Window(
            seconds, generator.frames, generator.bytes, used, busy, self._target.peak_bytes()
        )


def listen(
    generator: Generator,
    seconds: float,
    *,
    label: str = "listening",
    each_step: Callable[[], None] | None = None,
) -> None:
    """Let the clients read for `seconds`, with a progress bar and a timeline."""
    start = monotonic()
    with progress(label, seconds) as move:
        while (done := monotonic() - start) < seconds:
            move(done)
            generator.run_until(min(monotonic() + STEP, start + seconds))
            generator.latencies.mark()
            if each_step:
                each_step()


def behind(generator: Generator) -> int:
    """How many versions the clients still lack that somebody had SETTLE seconds ago."""
    newest: dict[bytes, int] = {}
    for client in generator.clients:
        for symbol, version in client.versions.items():
            newest[symbol] = max(version, newest.get(symbol, 0))
    generator.run_until(monotonic() + SETTLE)
    return sum(
        max(0, newest[symbol] - version)
        for client in generator.clients
        for symbol, version in client.versions.items()
    )


def measure(target: Target, generator: Generator, seconds: float, result: Result) -> Window:
    """Listen for `seconds`; the common figures and the latencies' course go into `result`."""
    meter = Meter(target, generator)
    listen(generator, seconds)
    window = meter.read()
    note_course(generator, window, result)
    return window


def note_course(generator: Generator, window: Window, result: Result) -> None:
    """Put a window's latencies and the generator's share of its core into `result`."""
    result.busy = max(result.busy, window.busy)
    result.histogram = generator.latencies.histogram()
    result.timeline = generator.latencies.timeline()


def common_figures(window: Window) -> list[Figure]:
    """What every scenario tells."""
    return [
        Figure("delivered", window.frames / window.seconds, Unit.PER_SECOND),
        Figure("received", window.bytes / window.seconds, Unit.BYTES_PER_SECOND),
        Figure("server CPU", window.cpu_seconds, Unit.SECONDS),
        Figure("server", window.core, Unit.CORE),
        Figure("server peak memory", window.peak, Unit.BYTES),
        Figure("generator", window.busy, Unit.CORE),
    ]


def check_failures(generator: Generator, result: Result) -> None:
    """Connections that failed or ended unasked make the outcome a failure."""
    result.wrong += [f"{count} × {reason}" for reason, count in generator.failed.items()]


def own_cpu() -> float:
    """Processor seconds of this process."""
    times = os.times()
    return times.user + times.system
