"""Slow clients among others: a tenth never reads, a tenth reads 1 KB a second.

`--rate` is moves per second and symbol; every connection watches all of ten symbols. The same is
measured without slow clients first, on a server of its own.
"""

from functools import partial

from bench import load
from bench.figures import Figure, Result, Unit
from bench.generator import Client, Generator
from bench.latency import Percentiles

CONNECTIONS, DURATION, RATE = 1000, 30, 2
SYMBOLS = 10

SLOW_BYTES = 1000
"""Bytes a second that a slow reader takes."""

SLOW_BUFFER = 8 * 1024
"""Bytes of a slow client's receive buffer, so that it is behind after seconds, not minutes."""


def run(options: load.Options) -> Result:
    """Measure both; what the others miss is a failure."""
    result = Result(
        "slow",
        f"{options.connections:,} connections on {SYMBOLS} symbols, {options.rate:g} moves/s of each: "
        f"10 % never read, 10 % read {SLOW_BYTES} B/s; {options.duration:g} s",
    )
    without, _, _ = _measure(options, 0, Result("", ""))
    latency, window, extra = _measure(options, options.connections // 10, result)
    result.add_latency(latency, {}, {})
    for name in ("p50", "p99"):
        one, other = getattr(latency, name, None), getattr(without, name, None)
        result.add(Figure(f"{name} without slow clients", other, Unit.SECONDS))
        must, aim = (1.5, 1.1) if name == "p99" else (None, None)
        ratio = one / other if one and other else None
        result.add(Figure(f"{name} with to without", ratio, Unit.RATIO, must, aim))
    result.add(*extra, *load.common_figures(window))
    return result


def _measure(
    options: load.Options, slow: int, result: Result
) -> tuple[Percentiles | None, load.Window, list[Figure]]:
    """The others' latency with twice `slow` slow clients, half of which never read."""
    schedule = options.schedule(SYMBOLS, options.rate)
    symbols = ",".join(schedule.symbols)
    with options.open(schedule) as target, load.open_generator(target) as generator:
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
        return generator.latencies.percentiles(), window, figures


def _read_slowly(generator: Generator, readers: list[Client]) -> None:
    for client in readers:
        generator.read_some(client, SLOW_BYTES)
