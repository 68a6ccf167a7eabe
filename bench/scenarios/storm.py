"""Everybody back at once, as after a deploy: all connections are cut and opened again together.

`--rate` is moves per second and symbol meanwhile. `--duration` bounds the storm.
"""

from time import monotonic

from bench.figures import Figure, Result, Unit
from bench.latency import Latencies
from bench.run import (
    SETTLE,
    Meter,
    Options,
    check_failures,
    choose_some,
    common_figures,
    connect,
    note_course,
    open_generator,
)

CONNECTIONS, DURATION, RATE = 10_000, 60, 0.25
SYMBOLS, EACH = 50, 5

MUST = {"p99": 0.100}


def run(options: Options) -> Result:
    """Measure; a connection that fails is a failure."""
    result = Result("storm", f"{options.connections:,} connections cut and opened again at once")
    schedule = options.schedule(SYMBOLS, options.rate)
    choose = choose_some(schedule.symbols, EACH)
    with options.open(schedule) as target, open_generator(target) as generator:
        connect(generator, target, options.connections, choose)
        generator.run_until(monotonic() + SETTLE)
        for client in list(generator.clients):
            generator.cut(client)
        generator.answered.clear()
        meter = Meter(target, generator)
        seconds = connect(
            generator, target, options.connections, choose, in_flight=options.connections
        )
        window = meter.read()
        note_course(generator, window, result)
        back = Latencies()
        for client in generator.answered:
            back.add(round((client.answered_at - client.opened_at) * 1e6))
        found = back.percentiles()
        result.add(
            Figure("all have a snapshot after", seconds, Unit.SECONDS, must=20, aim=8),
            Figure("snapshot p50", found and found.p50, Unit.SECONDS),
            Figure("snapshot p99", found and found.p99, Unit.SECONDS),
            Figure("failed", generator.failed.total(), Unit.COUNT, must=0),
        )
        result.add_latency(generator.latencies.percentiles(), MUST, {})
        result.add(*common_figures(window))
        check_failures(generator, result)
    return result
