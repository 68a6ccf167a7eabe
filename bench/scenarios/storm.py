"""All clients back at once, as after a deploy: all connections are cut and opened again together.

`--rate` is moves per second and symbol meanwhile. `--duration` bounds the storm.
"""

from time import monotonic

from bench import load
from bench.figures import Figure, Result, Unit

CONNECTIONS, DURATION, RATE = 10_000, 60, 0.25
SYMBOLS, EACH = 50, 5

MUST = {"p99": 0.100}


def run(options: load.Options) -> Result:
    """Measure. A connection that fails makes the result a failure."""
    result = Result("storm", f"{options.connections:,} connections cut and opened again at once")
    schedule = options.schedule(SYMBOLS, options.rate)
    choose = load.choose_some(schedule.symbols, EACH)
    with options.open(schedule) as target, load.open_generator(target, options.form) as generator:
        load.connect(generator, target, options.connections, choose)
        generator.run_until(monotonic() + load.SETTLE)
        for client in list(generator.clients):
            generator.cut(client)
        generator.answered.clear()
        meter = load.Meter(target, generator)
        seconds = load.connect(
            generator, target, options.connections, choose, in_flight=options.connections
        )
        window = meter.read()
        load.note_course(generator, window, result)
        found = load.first_messages(generator).percentiles()
        result.add(
            Figure("all have a snapshot after", seconds, Unit.SECONDS, must=20, aim=8),
            Figure("snapshot p50", found and found.p50, Unit.SECONDS),
            Figure("snapshot p99", found and found.p99, Unit.SECONDS),
            Figure("failed", generator.failed.total(), Unit.COUNT, must=0),
        )
        result.add_latency(generator.latencies.percentiles(), MUST, {})
        result.add(*load.common_figures(window))
        load.check_failures(generator, result)
    return result
