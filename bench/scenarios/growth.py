"""Growth of costs: of a frame with its receivers, and of an update with connections that do not get it.

The first two parts send one symbol to all connections, `--connections` and a tenth of them. `--rate` is
its moves per second. In the other two, one connection watches 50 symbols that move at ten times
`--rate` each, without and with `--connections` others that watch another symbol.
"""

from bench import load
from bench.figures import Figure, Result, Unit, ratio

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
    small = _fan_out(options, few, options.rate * 10, result).cost
    large = _fan_out(options, many, options.rate, result).cost
    alone = _updates(options, 0, result).cost
    among = _updates(options, many, result).cost
    few_figure = [Figure(f"CPU a frame, {few:,} connections", small, Unit.MICROSECONDS)]
    # One connection has no tenth.
    few_figure *= few < many
    result.add(
        *few_figure,
        Figure(f"CPU a frame, {many:,} connections", large, Unit.MICROSECONDS),
        Figure("ratio", ratio(large, small), Unit.RATIO, must=1.5, aim=1.1),
        Figure("CPU an update, 1 connection", alone, Unit.MICROSECONDS),
        Figure(f"CPU an update, among {many:,} others", among, Unit.MICROSECONDS),
        Figure("ratio with others", ratio(among, alone), Unit.RATIO, must=1.5, aim=1.1),
    )
    return result


def _fan_out(options: load.Options, connections: int, rate: float, result: Result) -> load.Window:
    """Send one symbol to all connections, at the same frames a second for both numbers of them."""
    schedule = options.schedule(1, rate)
    with options.open(schedule) as target, load.open_generator(target, options.form) as generator:
        load.connect(generator, target, connections, lambda _: schedule.symbols[0], sample=10)
        window = load.measure(target, generator, options.duration, result)
        load.check_failures(generator, result)
        return window


def _updates(options: load.Options, others: int, result: Result) -> load.Window:
    """Send many updates to one connection among `others` that get none."""
    schedule = options.schedule(SYMBOLS, 10 * options.rate)
    with options.open(schedule) as target, load.open_generator(target, options.form) as generator:
        load.connect(generator, target, others, lambda _: OTHER)
        load.connect(generator, target, 1, lambda _: ",".join(schedule.symbols))
        window = load.measure(target, generator, options.duration, result)
        load.check_failures(generator, result)
        return window
