"""The highest rate: 1,000 connections, with steps of the rate until p99 exceeds 250 ms.

It runs with one symbol, and with twenty that move at the same moment, in turn with the bare loop.
`--duration` is the length of a step. A running server has its own rate, so it gets only one step.
"""

from bench import load
from bench.figures import Figure, Result, Unit, ratio
from bench.peers import bare_loop, own_server
from bench.schedule import symbol_names
from bench.steps import Start, Step, run_step, search_all

CONNECTIONS, DURATION, RATE = 1000, 5, 0.0
TOGETHER = 20
"""Symbols that move at the same moment."""

OWN, LIMIT = "quotestream", "bare loop"


def run(options: load.Options) -> Result:
    """Measure."""
    result = Result(
        "saturate", f"{options.connections:,} connections, {options.duration:g} s a step"
    )
    best = {burst: _best(options, burst) for burst in (1, TOGETHER)}
    for burst, steps in best.items():
        _report(result, burst, steps.get(OWN), steps.get(LIMIT))
    joined = best[TOGETHER].get(OWN)
    result.add(
        Figure(f"{TOGETHER} symbols to 1", frames_ratio(joined, best[1].get(OWN)), Unit.RATIO),
        # A server that is behind joins one symbol's updates too. The bare loop never does.
        Figure(
            f"{TOGETHER} symbols to single writes",
            frames_ratio(joined, best[1].get(LIMIT)),
            Unit.RATIO,
            must=4,
            aim=8,
            at_least=True,
        ),
    )
    return result


def _report(result: Result, burst: int, step: Step | None, limit: Step | None) -> None:
    label = f"{burst} symbol{'s' * (burst > 1)}"
    if step and step.latency:
        result.busy = max(result.busy, step.busy)
        result.add(
            Figure(f"{label}, frames", step.frames, Unit.PER_SECOND),
            Figure(f"{label}, p99", step.latency.p99, Unit.SECONDS),
            Figure(f"{label}, server", step.core, Unit.CORE),
            Figure(f"{label}, generator", step.busy, Unit.CORE),
        )
    else:
        result.wrong.append(f"{label}: no rate was slow enough")
    if limit:
        to_limit = Figure(f"{label}, to the bare loop", frames_ratio(step, limit), Unit.RATIO)
        if burst == 1:
            to_limit = to_limit._replace(must=0.7, aim=0.9, at_least=True)
        result.add(Figure(f"{label}, bare loop", limit.frames, Unit.PER_SECOND), to_limit)


def _best(options: load.Options, burst: int) -> dict[str, Step | None]:
    symbols = ",".join(symbol_names(burst))
    if options.url:
        start: Start = lambda _: options.open()  # noqa: E731 (a name for the type's sake)
        return {OWN: run_step(start, 0, burst, symbols, options)}
    entrants = {
        OWN: own_server(options, burst),
        LIMIT: lambda rate: bare_loop(options.form, rate, burst),
    }
    return search_all(entrants, burst, symbols, options)


def frames_ratio(step: Step | None, other: Step | None) -> float | None:
    """Return the ratio of delivered frames a second."""
    return ratio(step.frames, other.frames) if step and other else None
