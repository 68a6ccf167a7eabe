"""Slow clients among others: a tenth never reads, a tenth reads 1 KB a second.

`--rate` is moves per second and symbol. Every connection watches all ten symbols. For comparison, the
same is first measured without slow clients, on a server of its own.
"""

from functools import partial
from typing import NamedTuple

from bench import load
from bench.figures import Figure, Result, Unit, ratio
from bench.generator import Client, Generator
from bench.latency import Percentiles

CONNECTIONS, DURATION, RATE = 1000, 30, 2
SYMBOLS = 10

SLOW_BYTES = 1000
"""Bytes a second that a slow client reads."""

SLOW_BUFFER = 8 * 1024
"""Bytes of a slow client's receive buffer: it is small, so that seconds are enough to fill it."""


class Outcome(NamedTuple):
    """The latency of the other clients, and the figures about the slow ones."""

    latency: Percentiles | None
    window: load.Window
    figures: list[Figure]


def run(options: load.Options) -> Result:
    """Measure both. An update that another client misses makes the result a failure."""
    result = Result(
        "slow",
        f"{options.connections:,} connections on {SYMBOLS} symbols, {options.rate:g} moves/s of each: "
        f"10 % never read, 10 % read {SLOW_BYTES} B/s; {options.duration:g} s",
    )
    without = _measure(options, 0, Result("", "")).latency
    found = _measure(options, options.connections // 10, result)
    result.add_latency(found.latency, {}, {})
    for name in ("p50", "p99"):
        one, other = getattr(found.latency, name, None), getattr(without, name, None)
        result.add(Figure(f"{name} without slow clients", other, Unit.SECONDS))
        figure = Figure(f"{name} with to without", ratio(one, other), Unit.RATIO)
        result.add(figure._replace(must=1.5, aim=1.1) if name == "p99" else figure)
    result.add(*found.figures, *load.common_figures(found.window))
    return result


def _measure(options: load.Options, slow: int, result: Result) -> Outcome:
    """Measure the others beside `slow` clients that never read and as many that read slowly."""
    schedule = options.schedule(SYMBOLS, options.rate)
    symbols = ",".join(schedule.symbols)
    with options.open(schedule) as target, load.open_generator(target, options.form) as generator:
        load.connect(generator, target, 2 * slow, lambda _: symbols, receive_buffer=SLOW_BUFFER)
        readers = list(generator.clients)[:slow]
        for client in generator.clients:
            generator.pause(client)
        load.connect(generator, target, options.connections - 2 * slow, lambda _: symbols)
        before = target.resident_bytes()
        conflated = target.metric("market_data_conflated_total")
        meter = load.Meter(target, generator)
        load.listen(
            generator, options.duration, each_step=partial(_read_slowly, generator, readers)
        )
        window = meter.read()
        load.note_course(generator, window, result)
        now = target.metric("market_data_conflated_total")
        resident = target.resident_bytes()
        grown = None if resident is None or before is None else resident - before
        merged = None if now is None or conflated is None else now - conflated
        evicted = target.metric('market_data_connections_closed_total{code="4429"}')
        if generator.missed:
            result.wrong.append(f"{generator.missed} updates missed by those that read")
        load.check_failures(generator, result)
        figures = [
            Figure("memory growth", grown, Unit.BYTES),
            Figure("conflated", merged, Unit.COUNT),
            Figure("evicted", evicted, Unit.COUNT),
        ]
        return Outcome(generator.latencies.percentiles(), window, figures)


def _read_slowly(generator: Generator, readers: list[Client]) -> None:
    for client in readers:
        generator.read_some(client, SLOW_BYTES)
