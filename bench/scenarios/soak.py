"""Long lives: steady clients, visitors that come and go, and slow ones, for hours.

`--connections` are the steady ones, a twentieth of which never reads; `--rate` is visitors per
second. Every minute is a row of memory, descriptors and latency; at the end, how they grew.
"""

from collections.abc import Sequence
from statistics import linear_regression
from time import monotonic
from typing import NamedTuple

from bench.figures import Figure, Result, Unit, written
from bench.generator import Generator
from bench.latency import Latencies
from bench.run import (
    Meter,
    Options,
    check_failures,
    choose_some,
    common_figures,
    connect,
    note_course,
    open_generator,
)
from bench.scenarios.churn import visit
from bench.schedule import Schedule
from bench.screen import show
from bench.target import Target

CONNECTIONS, DURATION, RATE = 1000, 1800, 20
SYMBOLS, EACH = 50, 5

ROWS = 30
"""Rows of a run that is shorter than half an hour; a row is a minute otherwise."""

LONGEST_ROW = 60.0

SLOW_BUFFER = 8 * 1024
"""Bytes of a receive buffer: who never reads is behind after some minutes."""


class Row(NamedTuple):
    """One minute: seconds from the start, bytes resident, open descriptors, p50 and p99 in seconds."""

    at: float
    resident: float
    descriptors: float
    p50: float
    p99: float


def run(options: Options) -> Result:
    """Measure; what the readers miss is a failure."""
    result = Result(
        "soak",
        f"{options.connections:,} connections, {options.rate:g} visitors/s, "
        f"{options.duration / 3600:.2f} hours",
    )
    schedule = Schedule(SYMBOLS, 0.25, options.duration + 120, together=False)
    choose = choose_some(schedule.symbols, EACH)
    with options.open(schedule) as target, open_generator(target) as generator:
        mute = max(1, options.connections // 20)
        connect(generator, target, mute, choose, receive_buffer=SLOW_BUFFER)
        for client in generator.clients:
            generator.pause(client)
        connect(generator, target, options.connections - mute, choose)
        meter = Meter(target, generator)
        rows = _live(generator, target, options, schedule.symbols)
        window = meter.read()
        note_course(generator, window, result)
        result.add(*_growth(rows), *common_figures(window))
        if generator.missed:
            result.wrong.append(f"{generator.missed} updates missed by those that read")
        # The server gives up those that never read; that is no failure of theirs.
        generator.failed.pop("ended by the server", None)
        check_failures(generator, result)
    return result


def _live(
    generator: Generator, target: Target, options: Options, symbols: Sequence[str]
) -> list[Row]:
    rows: list[Row] = []
    start = monotonic()
    row_seconds = min(LONGEST_ROW, options.duration / ROWS)
    while (at := monotonic() - start) < options.duration:
        generator.latencies = Latencies()
        visit(generator, target, options.rate, row_seconds, symbols)
        found = generator.latencies.percentiles()
        row = Row(
            at,
            target.resident_bytes() or 0,
            target.descriptors() or 0,
            found.p50 if found else 0,
            found.p99 if found else 0,
        )
        rows.append(row)
        show(
            f"{at:8.0f} s  {written(row.resident, Unit.BYTES):>10}  {row.descriptors:6.0f} descriptors"
            f"  p50 {written(row.p50, Unit.SECONDS):>9}  p99 {written(row.p99, Unit.SECONDS):>9}"
        )
    return rows


def _growth(rows: list[Row]) -> list[Figure]:
    """Of the second half, when what is made on first use is made."""
    half = rows[len(rows) // 2 :]
    slope = linear_regression([r.at for r in half], [r.resident for r in half]).slope
    third = max(1, len(rows) // 3)
    first = sum(row.p99 for row in rows[:third]) / third
    last = sum(row.p99 for row in rows[-third:]) / third
    return [
        Figure("memory growth an hour", slope * 3600, Unit.BYTES),
        Figure("memory at the end", rows[-1].resident, Unit.BYTES),
        Figure("descriptors, first minute", rows[0].descriptors, Unit.COUNT),
        Figure("descriptors, last minute", rows[-1].descriptors, Unit.COUNT),
        Figure("p99, last third to first", last / first if first else None, Unit.RATIO),
    ]
