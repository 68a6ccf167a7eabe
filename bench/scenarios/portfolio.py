"""The reference load: every connection watches five of fifty symbols, and each moves every 4 s.

`--rate` is moves per second and symbol. The moves are spread over the interval.
"""

from bench import load
from bench.figures import Figure, Result, Unit, ratio

CONNECTIONS, DURATION, RATE = 10_000, 60, 0.25
SYMBOLS, EACH = 50, 5

MUST = {"p95": 0.025, "p99": 0.050}
AIM = {"p95": 0.010}


def run(options: load.Options) -> Result:
    """Measure. A missed update makes the result a failure."""
    result = Result(
        "portfolio",
        f"{options.connections:,} connections, {EACH} of {SYMBOLS} symbols each, "
        f"{options.rate:g} moves/s of each symbol, {options.duration:g} s",
    )
    schedule = options.schedule(SYMBOLS, options.rate)
    with options.open(schedule) as target, load.open_generator(target) as generator:
        empty = target.resident_bytes()
        load.connect(
            generator, target, options.connections, load.choose_some(schedule.symbols, EACH)
        )
        window = load.measure(target, generator, options.duration, result)
        result.add_latency(generator.latencies.percentiles(), MUST, AIM)
        missed = generator.missed + load.behind(generator)
        if missed or generator.jumps:
            result.wrong.append(f"{missed} updates missed, {generator.jumps} merged")
        resident = target.resident_bytes()
        each = None if resident is None or empty is None else resident - empty
        result.add(
            Figure("updates missed", missed, Unit.COUNT, must=0),
            Figure("bytes an update", ratio(window.bytes, window.frames), Unit.BYTES, must=350),
            Figure("memory, empty server", empty, Unit.BYTES),
            Figure("memory, whole", resident, Unit.BYTES, must=140e6, aim=100e6),
            Figure(
                "memory a connection", each and each / options.connections, Unit.BYTES, must=9000
            ),
            *(
                each._replace(must=0.35, aim=0.20) if each.name == "server" else each
                for each in load.common_figures(window)
            ),
        )
        load.check_failures(generator, result)
    return result
