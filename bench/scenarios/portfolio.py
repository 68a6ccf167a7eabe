"""The reference load: every connection watches five of fifty symbols, and each moves every 4 s.

`--rate` is moves per second and symbol. The moves are spread over the interval. The figure of 2,500
updates a second is for a smaller load: 10,000 clients with one change each every 4 s.
"""

from bench import load
from bench.figures import Figure, Result, Unit, ratio

CONNECTIONS, DURATION, RATE = 10_000, 60, 0.25
SYMBOLS, EACH = 50, 5

BYTES: dict[tuple[str, str], float] = {
    ("json", ""): 350,
    ("json", "current_price"): 180,
    ("compact", ""): 70,
    ("msgpack", ""): 48,
}
"""The most bytes of an update, by form and fields."""

CALM_RATE = 2500
"""Updates a second: 10,000 clients, a change each every 4 s."""

CALM_BYTES = {"compact": 180e3, "msgpack": 125e3}
"""The most bytes a second that these may take, by form."""

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
    with options.open(schedule) as target, load.open_generator(target, options.form) as generator:
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
        size = ratio(window.bytes, window.frames)
        result.add(
            Figure("updates missed", missed, Unit.COUNT, must=0),
            Figure(
                "bytes an update",
                size,
                Unit.BYTES,
                must=BYTES.get((options.format, options.fields)),
            ),
            Figure(
                f"{CALM_RATE:,} updates a second",
                size and size * CALM_RATE,
                Unit.BYTES_PER_SECOND,
                must=CALM_BYTES.get(options.format),
            ),
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
