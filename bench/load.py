"""Tools of all scenarios: open a target, connect, measure for a while, add the common figures."""

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from random import Random
from time import monotonic

from bench.figures import Figure, Result, Unit, ratio
from bench.forms import FORMS, Form
from bench.generator import Generator
from bench.latency import Latencies
from bench.schedule import Schedule
from bench.screen import progress
from bench.target import OwnServer, RunningServer, Target, TargetError

USER_CONNECTIONS = 100
"""Connections of each user: the default of WS_MAX_CONNECTIONS_PER_USER."""

IN_FLIGHT = 64
"""Concurrent handshakes while connecting, if a scenario does not set another number."""

MAX_FAILURES = 10
"""Failures without a success after which connecting is given up."""

CONNECT_TIMEOUT = 120.0
"""Seconds without any progress after which connecting is given up."""

STEP = 1.0
"""Seconds between two entries of the timeline and two moves of the progress bar."""

SETTLE = 1.0
"""Seconds for frames on their way to arrive."""

SPARE_SECONDS = 15
"""Seconds of a schedule beyond connecting and measuring."""

SLOWEST_CONNECTS = 300
"""Handshakes a second that any machine manages. Schedules are long enough for that."""


@dataclass(kw_only=True, frozen=True)
class Options:
    """The options of the command line. Each scenario explains its `rate`."""

    connections: int
    duration: float
    rate: float
    url: str = ""
    token: str = ""
    secret: str = ""
    http: str = ""
    format: str = Form.name
    fields: str = ""

    @property
    def form(self) -> Form:
        """Return the form of messages that the clients ask for."""
        return FORMS[self.format](self.fields)

    def open(
        self, schedule: Schedule | None = None, **variables: str
    ) -> AbstractContextManager[Target]:
        """Return the running server at `url`, or one of our own with `schedule` as its feed."""
        if self.url:
            return RunningServer(self.url, self.token, self.secret, self.http)
        return OwnServer(schedule, **variables)

    def schedule(self, symbols: int, rate: float, *, together: bool = False) -> Schedule:
        """Return a schedule long enough to connect and to measure."""
        seconds = self.connections / SLOWEST_CONNECTS + 2 * self.duration + SPARE_SECONDS
        return Schedule(symbols, rate, seconds, together=together)


@contextmanager
def open_generator(target: Target, form: Form | None = None) -> Iterator[Generator]:
    """Open clients of `target`, without garbage collection: it would stall, and they make no cycles.

    Arguments:
        form: the form of messages to ask for; JSON by default.
    """
    generator = Generator(target.url, form or Form())
    gc.collect()
    gc.disable()
    try:
        yield generator
    finally:
        gc.enable()
        generator.close()


Choice = Callable[[int], str]
"""Returns a connection's symbols by its number, comma-separated, and more parameters behind a `&`."""


def choose_some(symbols: list[str], count: int) -> Choice:
    """Return a choice of `count` random symbols, always the same for a connection's number."""
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
    """Open `count` connections, wait for the first message of each, and return the seconds.

    Arguments:
        rate: connections a second, even if earlier ones are not answered.
        in_flight: concurrent handshakes without a `rate`.
        sample: one connection in `sample` parses its messages, the others count frames.
        receive_buffer: bytes of a socket's buffer, 0 for the kernel's default.
        compressed: offer compression.

    Errors: TargetError if no connection succeeds, or progress ends.
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
            if generator.failed.total() > MAX_FAILURES and not generator.answered:
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
    """Counts of a stretch of time. `busy` is the generator's share of a core. Values of the server are
    None if they cannot be read.
    """

    seconds: float
    frames: int
    bytes: int
    cpu_seconds: float | None
    busy: float
    peak: int | None

    @property
    def cost(self) -> float | None:
        """Return the server's CPU time of one frame in microseconds.

        It is None without frames, and if the time is shorter than the kernel's clock can tell.
        """
        return ratio(self.cpu_seconds * 1e6, self.frames) if self.cpu_seconds else None

    @property
    def core(self) -> float | None:
        """Return the server's share of a core."""
        return None if self.cpu_seconds is None else self.cpu_seconds / self.seconds


class Meter:
    """Measures a window. Making a meter resets the generator's counts."""

    def __init__(self, target: Target, generator: Generator) -> None:
        self._target = target
        self._generator = generator
        generator.reset()
        self._cpu = target.cpu_seconds()
        self._used = own_cpu()
        self._start = monotonic()

    def read(self) -> Window:
        """Return the window from the meter's making until now."""
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
    """Count the versions that some client had SETTLE seconds ago and other clients still lack."""
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
    """Listen for `seconds`, and put the latencies' course into `result`."""
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
    """Return the figures that every scenario has."""
    return [
        Figure("delivered", window.frames / window.seconds, Unit.PER_SECOND),
        Figure("received", window.bytes / window.seconds, Unit.BYTES_PER_SECOND),
        Figure("server CPU", window.cpu_seconds, Unit.SECONDS),
        Figure("server", window.core, Unit.CORE),
        Figure("server peak memory", window.peak, Unit.BYTES),
        Figure("generator", window.busy, Unit.CORE),
    ]


def first_messages(generator: Generator) -> Latencies:
    """Return the time from opening each answered connection to its first message."""
    found = Latencies()
    for client in generator.answered:
        found.add(round((client.answered_at - client.opened_at) * 1e6))
    return found


def check_failures(generator: Generator, result: Result, label: str = "") -> None:
    """Make the result a failure if connections failed or the server ended them."""
    result.wrong += [f"{label}{count} × {reason}" for reason, count in generator.failed.items()]


def own_cpu() -> float:
    """Return the processor seconds of this process."""
    times = os.times()
    return times.user + times.system
