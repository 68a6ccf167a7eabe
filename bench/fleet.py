"""Ten instances at once, one of which leads, each with the portfolio's load."""

from collections.abc import Callable
from contextlib import ExitStack
from time import monotonic, sleep

from hdrh.histogram import HdrHistogram

from bench.crowd import Counts, Crowd
from bench.figures import Figure, Result, Unit
from bench.instances import Instance, Traffic, open_redis
from bench.latency import DIGITS, LONGEST_US, percentiles
from bench.load import SETTLE, Options, choose_some
from bench.schedule import Schedule
from bench.screen import progress

INSTANCES = 10
SYMBOLS, EACH, RATE = 50, 5, 0.25
"""The load of `portfolio`: each connection watches five of fifty symbols, which move every 4 s."""

SLICE = 250
"""Connections opened to each instance at a time."""

TICK = 0.1
"""Seconds between two moves of the progress bar."""


def measure_fleet(options: Options, _: int, result: Result) -> None:
    """Measure with `options.connections` to each instance. A missed update is a failure."""
    seconds = INSTANCES * options.connections / 300 + 2 * options.duration + 60
    schedule = Schedule(SYMBOLS, options.rate, seconds, together=False)
    choose = choose_some(schedule.symbols, EACH)
    with ExitStack() as stack:
        redis = stack.enter_context(open_redis())
        fleet = [stack.enter_context(Instance(redis, schedule))]
        fleet += [stack.enter_context(Instance(redis, FEED="bus")) for _ in range(INSTANCES - 1)]
        crowds = [stack.enter_context(Crowd(instance, choose)) for instance in fleet]
        begin = monotonic()
        with progress("connecting", options.connections) as move:
            for start in range(0, options.connections, SLICE):
                move(start)
                _all(crowds, lambda it: it.open(min(SLICE, options.connections - start)))  # noqa: B023 (called here)
        connecting = monotonic() - begin
        _listen(SETTLE)

        cpu, before = [each.cpu_seconds() or 0 for each in fleet], Traffic.read(redis)
        _all(crowds, Crowd.reset)
        _listen(options.duration)
        counts = _all(crowds, Crowd.reset)
        used = [(each.cpu_seconds() or 0) - b for each, b in zip(fleet, cpu, strict=True)]
        traffic = Traffic.read(redis).since(before)
        memory = sum(each.resident_bytes() or 0 for each in fleet)

    histogram = HdrHistogram(1, LONGEST_US, DIGITS)
    for each in counts:
        histogram.decode_and_add(each.histogram)
    duration = options.duration
    result.histogram = histogram
    result.busy = max(result.busy, *(each.cpu / duration for each in counts))
    result.add_latency(percentiles(histogram), {}, {})
    missed = sum(each.missed for each in counts)
    result.add(
        Figure("fleet, connections", INSTANCES * options.connections, Unit.COUNT),
        Figure("fleet, connecting", connecting, Unit.SECONDS),
        Figure("fleet, delivered", sum(each.frames for each in counts) / duration, Unit.PER_SECOND),
        Figure("fleet, missed", missed, Unit.COUNT, must=0),
        Figure("fleet, leader", used[0] / duration, Unit.CORE),
        Figure("fleet, each other", sum(used[1:]) / duration / len(used[1:]), Unit.CORE),
        Figure("fleet, memory", memory, Unit.BYTES),
        Figure("fleet, Redis in", traffic.received / duration, Unit.BYTES_PER_SECOND),
        Figure("fleet, Redis out", traffic.sent / duration, Unit.BYTES_PER_SECOND),
        Figure("fleet, Redis", traffic.cpu / duration, Unit.CORE),
        Figure("fleet, generators", sum(each.cpu for each in counts) / duration, Unit.CORE),
    )
    if missed:
        result.wrong.append(f"fleet: {missed} updates missed")
    for each in counts:
        result.wrong += [f"fleet: {count} × {reason}" for reason, count in each.failed.items()]


def _all(crowds: list[Crowd], command: Callable[[Crowd], None]) -> list[Counts]:
    """Send a command to all crowds at once, and return their counts after a `reset`."""
    for crowd in crowds:
        command(crowd)
    return [counts for crowd in crowds if (counts := crowd.wait())]


def _listen(seconds: float) -> None:
    start = monotonic()
    with progress("listening", seconds) as move:
        while (done := monotonic() - start) < seconds:
            move(done)
            sleep(min(TICK, seconds - done))
