"""Hours of service: steady clients, visitors that come and go, and some clients that never read.

`--connections` are the steady ones. Of twenty, four ask for a price every ten seconds, four have their
messages compressed, and one never reads. When the server gives that one up, another replaces it.
`--rate` is visitors per second. Every minute prints a row; the end shows growth of memory and latency.
"""

from collections import deque
from collections.abc import Sequence
from statistics import linear_regression
from time import monotonic
from typing import NamedTuple

from bench import load
from bench.figures import Figure, Result, Unit, ratio, written
from bench.generator import Client, Generator
from bench.latency import Latencies
from bench.scenarios.churn import visit
from bench.schedule import Schedule
from bench.screen import show
from bench.target import Target

CONNECTIONS, DURATION, RATE = 1000, 1800, 20
SYMBOLS, EACH = 50, 5

INTERVAL = "&interval=10s"
"""The parameter of throttled clients: two to three moves of a symbol become one."""

ROWS = 30
"""Rows of a run of less than half an hour. In longer runs, a row is a minute."""

LONGEST_ROW = 60.0
"""Seconds of a row in a long run."""

MUTE_ROWS = 4
"""Rows until a client that never reads is closed. The server gives it up in the second minute."""

SLOW_BUFFER = 8 * 1024
"""Bytes of a receive buffer: it is small, so that seconds are enough to fill it."""

OPEN = 'market_data_circuit_breakers{state="open"}'
CONFLATED = "market_data_conflated_total"
EVICTED = 'market_data_connections_closed_total{code="4429"}'


class Row(NamedTuple):
    """One minute: seconds since the start, resident bytes, open descriptors and open circuit breakers;
    updates conflated and connections given up since the start; p50 and p99 in seconds.
    """

    at: float
    resident: float
    descriptors: float
    breakers: float
    conflated: float
    evicted: float
    p50: float
    p99: float


def run(options: load.Options) -> Result:
    """Measure. An update that a reading client misses makes the result a failure."""
    result = Result(
        "soak",
        f"{options.connections:,} connections, {options.rate:g} visitors/s, "
        f"{options.duration / 3600:.2f} hours",
    )
    schedule = Schedule(SYMBOLS, 0.25, options.duration + 120, together=False)
    choose = load.choose_some(schedule.symbols, EACH)
    some, mute = options.connections // 5, max(1, options.connections // 20)
    with (
        options.open(schedule, WS_COMPRESSION="shared") as target,
        load.open_generator(target, options.form) as generator,
    ):
        load.connect(generator, target, some, lambda number: choose(number) + INTERVAL)
        load.connect(generator, target, some, choose, compressed=True)
        load.connect(generator, target, options.connections - 2 * some - mute, choose)
        meter = load.Meter(target, generator)
        rows = _live(generator, target, options, schedule.symbols, mute)
        window = meter.read()
        load.note_course(generator, window, result)
        result.add(*_growth(rows), *load.common_figures(window))
        if generator.missed:
            result.wrong.append(f"{generator.missed} updates missed by those that read")
        load.check_failures(generator, result)
    return result


def _live(
    generator: Generator, target: Target, options: load.Options, symbols: Sequence[str], mute: int
) -> list[Row]:
    rows: list[Row] = []
    start = monotonic()
    row_seconds = min(LONGEST_ROW, options.duration / ROWS)
    mutes: deque[list[Client]] = deque()
    everything = ",".join(symbols)
    while (at := monotonic() - start) < options.duration:
        if len(mutes) == MUTE_ROWS:
            for client in mutes.popleft():
                generator.cut(client)
        share = -(-mute * (len(mutes) + 1) // MUTE_ROWS) - sum(map(len, mutes))
        mutes.append(_add_mute(generator, target, share, lambda _: everything))
        generator.latencies = Latencies()
        visit(generator, target, options.rate, row_seconds, symbols)
        rows.append(_row(at, generator, target))
        show(_written(rows[-1]))
    return rows


def _add_mute(
    generator: Generator, target: Target, count: int, choose: load.Choice
) -> list[Client]:
    """Open clients that read their snapshot, or its beginning, and nothing more."""
    generator.answered.clear()
    load.connect(generator, target, count, choose, receive_buffer=SLOW_BUFFER)
    mute = list(generator.answered)
    for client in mute:
        generator.pause(client)
    return mute


def _row(at: float, generator: Generator, target: Target) -> Row:
    found = generator.latencies.percentiles()
    return Row(
        at,
        target.resident_bytes() or 0,
        target.descriptors() or 0,
        target.metric(OPEN) or 0,
        target.metric(CONFLATED) or 0,
        target.metric(EVICTED) or 0,
        found.p50 if found else 0,
        found.p99 if found else 0,
    )


def _written(row: Row) -> str:
    return (
        f"{row.at:8.0f} s  {written(row.resident, Unit.BYTES):>10}  {row.descriptors:6.0f} descriptors"
        f"  {row.breakers:4.0f} breakers open  {row.evicted:6.0f} given up"
        f"  {row.conflated:10,.0f} conflated"
        f"  p50 {written(row.p50, Unit.SECONDS):>9}  p99 {written(row.p99, Unit.SECONDS):>9}"
    )


def _growth(rows: list[Row]) -> list[Figure]:
    """Return the growth in the second half: by then, caches and pools are filled."""
    half = rows[len(rows) // 2 :]
    # One point has no slope.
    slope = (
        linear_regression([r.at for r in half], [r.resident for r in half]).slope * 3600
        if len(half) > 1
        else None
    )
    third = max(1, len(rows) // 3)
    first = sum(row.p99 for row in rows[:third]) / third
    last = sum(row.p99 for row in rows[-third:]) / third
    return [
        Figure("memory growth an hour", slope, Unit.BYTES),
        Figure("memory at the end", rows[-1].resident, Unit.BYTES),
        Figure("descriptors, first minute", rows[0].descriptors, Unit.COUNT),
        Figure("descriptors, last minute", rows[-1].descriptors, Unit.COUNT),
        Figure("breakers open, at most", max(row.breakers for row in rows), Unit.COUNT),
        Figure("conflated", rows[-1].conflated, Unit.COUNT),
        Figure("given up as too slow", rows[-1].evicted, Unit.COUNT),
        Figure("p99, last third to first", ratio(last, first), Unit.RATIO),
    ]
