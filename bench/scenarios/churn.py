"""Coming and going: 400 connections a second open and close, beside 5,000 steady ones.

`--connections` are the steady ones, `--rate` is openings per second. Each visitor stays a second.
"""

from collections import deque
from collections.abc import Sequence
from time import monotonic

from bench import load
from bench.figures import Figure, Result, Unit
from bench.generator import Client, Generator
from bench.screen import progress
from bench.target import Target

CONNECTIONS, DURATION, RATE = 5000, 60, 400
SYMBOLS, EACH = 50, 5

STAY = 1.0
"""Seconds from a visitor's first message until it leaves."""

LATE = 10.0
"""Seconds to wait for answers after the last opening."""

TICK = 0.01
"""Seconds between two looks at the visitors that are due to come or leave."""

REST = 5.0
"""Seconds between the last visitor's leaving and the reading of the memory."""

MUST = {"p99": 0.100}


def run(options: load.Options) -> Result:
    """Measure. A visitor that is refused or fails makes the result a failure."""
    result = Result(
        "churn",
        f"{options.connections:,} steady connections, {options.rate:g} opened and closed a second "
        f"for {options.duration:g} s",
    )
    schedule = options.schedule(SYMBOLS, 0.25)
    choose = load.choose_some(schedule.symbols, EACH)
    with options.open(schedule) as target, load.open_generator(target, options.form) as generator:
        load.connect(generator, target, options.connections, choose)
        before = target.resident_bytes()
        meter = load.Meter(target, generator)
        visited, late = visit(generator, target, options.rate, options.duration, schedule.symbols)
        window = meter.read()
        load.note_course(generator, window, result)
        result.add_latency(generator.latencies.percentiles(), MUST, {})
        generator.run_until(monotonic() + REST)
        after = target.resident_bytes()
        grown = None if before is None or after is None else after / before
        result.add(
            Figure(
                "opened and closed",
                # A fraction of a visitor is too short to say.
                (visited / options.duration) if options.rate * options.duration >= 1 else None,
                Unit.PER_SECOND,
                must=0.98 * min(options.rate, 400),
                aim=980,
                at_least=True,
            ),
            Figure("failed", generator.failed.total(), Unit.COUNT, must=0),
            Figure("unanswered at the end", late, Unit.COUNT, must=0),
            Figure("memory before", before, Unit.BYTES),
            Figure("memory after", after, Unit.BYTES),
            Figure("memory after to before", grown, Unit.RATIO, must=1.05),
            *load.common_figures(window),
        )
        load.check_failures(generator, result)
    return result


def visit(
    generator: Generator, target: Target, rate: float, seconds: float, symbols: Sequence[str]
) -> tuple[int, int]:
    """Open `rate` connections a second for `seconds`. Each leaves after STAY.

    Return the number that came and left, and the number still without an answer after LATE.
    """
    start, opened, left = monotonic(), 0, 0
    staying: deque[Client] = deque()
    marked = start
    # The steady connections are not visitors.
    generator.answered.clear()
    with progress("coming and going", seconds) as move:
        while (now := monotonic()) < start + seconds or staying or generator.pending:
            while opened < int(min(now - start, seconds) * rate):
                query = target.query(f"visitor{generator.opened}", symbols[opened % len(symbols)])
                generator.open(query, sampled=False)
                opened += 1
            staying += generator.answered
            generator.answered.clear()
            while staying and staying[0].answered_at <= now - STAY:
                client = staying.popleft()
                if client in generator.clients:
                    generator.leave(client)
                    left += 1
            if now > start + seconds + LATE:
                break
            generator.run_until(now + TICK)
            if now - marked >= load.STEP:
                marked = now
                generator.latencies.mark()
                move(now - start)
    return left, generator.pending
