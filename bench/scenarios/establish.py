"""Opening connections, each with a token of its own: as fast as possible, and at a steady rate.

`--rate` is handshakes per second of the second part, which has a third of the connections.
"""

from time import monotonic

from bench import load
from bench.figures import Figure, Result, Unit

CONNECTIONS, DURATION, RATE = 10_000, 60, 300
SYMBOLS, EACH = 50, 5


def run(options: load.Options) -> Result:
    """Measure. `duration` bounds the second part."""
    result = Result(
        "establish",
        f"{options.connections:,} connections of {EACH} symbols as fast as it goes, "
        f"then {options.rate:g} a second",
    )
    schedule = options.schedule(SYMBOLS, 0.25)
    choose = load.choose_some(schedule.symbols, EACH)
    with options.open(schedule) as target:
        with load.open_generator(target, options.form) as generator:
            meter = load.Meter(target, generator)
            seconds = load.connect(generator, target, options.connections, choose)
            fast = meter.read()
            load.note_course(generator, fast, result)
            load.check_failures(generator, result)
        with load.open_generator(target, options.form) as generator:
            # The end of the first part's connections is not measured.
            generator.run_until(monotonic() + load.SETTLE)
            meter = load.Meter(target, generator)
            count = min(options.connections // 3, int(options.rate * options.duration)) or 1
            load.connect(generator, target, count, choose, rate=options.rate)
            paced = meter.read()
            first = load.first_messages(generator)
            load.note_course(generator, paced, result)
            load.check_failures(generator, result)
    result.histogram = first.histogram()
    found = first.percentiles()
    assert found is not None, "connect() returns once every client has its first message"
    cost = None if fast.cpu_seconds is None else fast.cpu_seconds / options.connections * 1e6
    result.add(
        Figure(
            "handshakes", options.connections / seconds, Unit.PER_SECOND, 700, 2000, at_least=True
        ),
        Figure("server CPU a handshake", cost, Unit.MICROSECONDS),
        Figure("first snapshot p50", found.p50, Unit.SECONDS),
        Figure("first snapshot p95", found.p95, Unit.SECONDS),
        Figure("first snapshot p99", found.p99, Unit.SECONDS, must=0.050),
        *load.common_figures(fast),
    )
    return result
