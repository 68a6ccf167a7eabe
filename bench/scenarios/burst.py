"""One price to all clients: all connections watch one symbol, which moves every 4 s.

`--rate` is moves per second. Before and after, the bare loop sends the same to as many connections.
"""

from contextlib import AbstractContextManager
from statistics import median

from bench import load
from bench.figures import Figure, Result, Unit, ratio
from bench.peers import bare_loop
from bench.target import Target

CONNECTIONS, DURATION, RATE = 10_000, 40, 0.25

SAMPLE = 10
"""One connection in SAMPLE records when it got each update. The last of them stands for all."""


def run(options: load.Options) -> Result:
    """Measure, without the bare loop if `options` name a running server."""
    result = Result(
        "burst",
        f"{options.connections:,} connections on one symbol, {options.rate:g} moves/s, "
        f"{options.duration:g} s",
    )
    schedule = options.schedule(1, options.rate, together=True)
    symbol = schedule.symbols[0]
    reference = (
        []
        if options.url
        else [_last_client(bare_loop(options.form, options.rate), symbol, options, None)]
    )
    own = _last_client(options.open(schedule), symbol, options, result)
    if reference:
        reference.append(_last_client(bare_loop(options.form, options.rate), symbol, options, None))
        known = [last for last in reference if last is not None]
        limit = sum(known) / len(known) if known else None
        to_limit = ratio(own, limit)
        result.add(
            Figure("last client, bare loop", limit, Unit.SECONDS),
            Figure("ratio to the bare loop", to_limit, Unit.RATIO, must=1.3, aim=1.1),
        )
    return result


def _last_client(
    server: AbstractContextManager[Target],
    symbol: str,
    options: load.Options,
    result: Result | None,
) -> float | None:
    """Return the seconds from intake to the last client, as the median of all updates.

    Without an update it is None.
    """
    scrap = result or Result("burst", "")
    with server as target, load.open_generator(target, options.form) as generator:
        load.connect(generator, target, options.connections, lambda _: symbol, sample=SAMPLE)
        window = load.measure(target, generator, options.duration, scrap)
        lasts = [last / 1e6 for last in generator.last.values()]
        last = median(lasts) if lasts else None
        if result:
            result.add_latency(generator.latencies.percentiles(), {}, {})
            result.add(
                Figure("last client", last, Unit.SECONDS),
                Figure("server CPU a frame", window.cost, Unit.MICROSECONDS),
                *load.common_figures(window),
            )
            load.check_failures(generator, result)
            if generator.missed:
                result.wrong.append(f"{generator.missed} updates missed")
    return last
