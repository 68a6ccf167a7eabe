"""Ten instances at once, one of which leads, with the portfolio's load on each: does it add up?"""

from contextlib import ExitStack
from time import monotonic

from hdrh.histogram import HdrHistogram

from bench.figures import Figure, Result, Unit
from bench.instances import Instance, Traffic, open_redis
from bench.latency import DIGITS, LONGEST_US, percentiles
from bench.run import SETTLE, Options, choose_some, connect, open_generator, own_cpu
from bench.schedule import Schedule
from bench.screen import progress

INSTANCES = 10
SYMBOLS, EACH, RATE = 50, 5, 0.25
"""As in `portfolio`: each connection watches five of fifty symbols, which move every 4 s."""

SAMPLE = 10
"""One connection in so many is asked when it got an update, and whether it missed one."""

SLICE = 250
"""Connections opened to one instance before the next has its turn: nobody misses a ping meanwhile."""

POLL = 0.0005
"""Seconds for which each instance's clients read in turn: ten of these are in the latencies."""


def measure_fleet(options: Options, _: int, result: Result) -> None:
    """`options.connections` to each instance; what a client misses is a failure."""
    connections = INSTANCES * options.connections
    seconds = connections / 300 + 2 * options.duration + 60
    schedule = Schedule(SYMBOLS, RATE, seconds, together=False)
    choose = choose_some(schedule.symbols, EACH)
    with ExitStack() as stack:
        redis = stack.enter_context(open_redis())
        fleet = [stack.enter_context(Instance(redis, schedule))]
        fleet += [
            stack.enter_context(Instance(redis, FEED="bus", WS_MAX_CONNECTIONS="100000"))
            for _ in range(INSTANCES - 1)
        ]
        crowds = [stack.enter_context(open_generator(instance)) for instance in fleet]
        for start in range(
            0, options.connections, SLICE
        ):  # no crowd waits long enough to be given up
            for crowd, instance in zip(crowds, fleet, strict=True):
                count = min(SLICE, options.connections - start)
                connect(crowd, instance, count, choose, sample=SAMPLE)

        def listen(seconds: float) -> None:
            start = monotonic()
            with progress("listening", seconds) as move:
                while (now := monotonic()) < start + seconds:
                    move(now - start)
                    for crowd in crowds:
                        crowd.run_until(monotonic() + POLL)

        listen(5 * SETTLE)  # those that were first have waited for the last
        for crowd in crowds:
            crowd.reset()
        cpu, own, before = (
            [each.cpu_seconds() or 0 for each in fleet],
            own_cpu(),
            Traffic.read(redis),
        )
        listen(options.duration)
        used = [(each.cpu_seconds() or 0) - b for each, b in zip(fleet, cpu, strict=True)]
        traffic, busy = Traffic.read(redis).since(before), own_cpu() - own
        histogram = HdrHistogram(1, LONGEST_US, DIGITS)
        for crowd in crowds:
            histogram.add(crowd.latencies.histogram())
        result.busy = max(result.busy, busy / options.duration)
        result.histogram = histogram
        result.add_latency(percentiles(histogram), {}, {})
        missed = sum(crowd.missed for crowd in crowds)
        frames = sum(crowd.frames for crowd in crowds)
        result.add(
            Figure("fleet, connections", connections, Unit.COUNT),
            Figure("fleet, delivered", frames / options.duration, Unit.PER_SECOND),
            Figure("fleet, missed", missed, Unit.COUNT, must=0),
            Figure("fleet, leader", used[0] / options.duration, Unit.CORE),
            Figure(
                "fleet, each other", sum(used[1:]) / options.duration / len(used[1:]), Unit.CORE
            ),
            Figure("fleet, memory", sum(each.resident_bytes() or 0 for each in fleet), Unit.BYTES),
            Figure("fleet, Redis in", traffic.received / options.duration, Unit.BYTES_PER_SECOND),
            Figure("fleet, Redis out", traffic.sent / options.duration, Unit.BYTES_PER_SECOND),
            Figure("fleet, Redis", traffic.cpu / options.duration, Unit.CORE),
            Figure("fleet, generator", busy / options.duration, Unit.CORE),
        )
        if missed:
            result.wrong.append(f"fleet: {missed} updates missed")
        for crowd in crowds:
            result.wrong += [f"fleet: {count} × {reason}" for reason, count in crowd.failed.items()]
