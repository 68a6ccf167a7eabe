"""Growth of costs: of a frame with its receivers, and of an update with connections that do not get it.

The first two parts send one symbol to all connections, `--connections` and a tenth of them. `--rate` is
its moves per second. In the other two, one connection watches 50 symbols that move at ten times
`--rate` each, without and with `--connections` others that watch another symbol.
"""

from bench import load
from bench.figures import Figure, Result, Unit

CONNECTIONS, DURATION, RATE = 10_000, 10, 2.0
SYMBOLS = 50
OTHER = "VNQ"
"""A symbol that no schedule moves."""


def run(options: load.Options) -> Result:
    """Measure. Costs are the server's whole CPU time, with that of its idle tasks."""
    many, few = options.connections, max(1, options.connections // 10)
    result = Result(
        "growth", f"{few:,} and {many:,} connections, {options.duration:g} s each of four parts"
    )
    small = _per_frame(_fan_out(options, few, options.rate * 10, result))
    large = _per_frame(_fan_out(options, many, options.rate, result))
    alone = _per_frame(_updates(options, 0, result))
    among = _per_frame(_updates(options, many, result))
    result.add(
        Figure(f"CPU a frame, {few:,} connections", small, Unit.MICROSECONDS),
        Figure(f"CPU a frame, {many:,} connections", large, Unit.MICROSECONDS),
        Figure("ratio", large and small and large / small, Unit.RATIO, must=1.5, aim=1.1),
        Figure("CPU an update, 1 connection", alone, Unit.MICROSECONDS),
        Figure(f"CPU an update, among {many:,} others", among, Unit.MICROSECONDS),
        Figure(
            "ratio with others", among and alone and among / alone, Unit.RATIO, must=1.5, aim=1.1
        ),
    )
    return result


def _fan_out(options: load.Options, connections: int, rate: float, result: Result) -> load.Window:
    """Send one symbol to all connections, at the same frames a second for both numbers of them."""
    schedule = options.schedule(1, rate)
    with options.open(schedule) as target, load.open_generator(target) as generator:
        load.connect(generator, target, connections, lambda _: schedule.symbols[0], sample=10)
        window = load.measure(target, generator, options.duration, result)
        load.check_failures(generator, result)
        return window


def _updates(options: load.Options, others: int, result: Result) -> load.Window:
    """Send many updates to one connection among `others` that get none."""
    schedule = options.schedule(SYMBOLS, 10 * options.rate)
    with options.open(schedule) as target, load.open_generator(target) as generator:
        load.connect(generator, target, others, lambda _: OTHER)
        load.connect(generator, target, 1, lambda _: ",".join(schedule.symbols))
        window = load.measure(target, generator, options.duration, result)
        load.check_failures(generator, result)
        return window


def _per_frame(window: load.Window) -> float | None:
    """Return the server's CPU time of one frame, in microseconds."""
    return window.cpu_seconds and window.cpu_seconds / max(window.frames, 1) * 1e6
