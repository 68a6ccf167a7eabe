"""Compares the broadcast of several servers by the last good step of each. They run in turn."""

from collections.abc import Sequence

from bench.figures import Figure, Result, Unit, ratio
from bench.load import Options
from bench.peers import entrant
from bench.scenarios.saturate import LIMIT, OWN, TOGETHER
from bench.schedule import symbol_names
from bench.steps import search_all


def run_compare(options: Options, names: Sequence[str]) -> Result:
    """Measure. A server that is not installed is left out with a message."""
    result = Result(
        "compare", f"{options.connections:,} connections, {options.duration:g} s a step"
    )
    for burst in (1, TOGETHER):
        entrants = {name: entrant(name, options, burst) for name in names}
        symbols = ",".join(symbol_names(burst))
        present = {name: start for name, start in entrants.items() if start is not None}
        best = search_all(present, burst, symbols, options)
        limit = best.get(LIMIT)
        for name in names:
            step = best.get(name)
            label = f"{name}, {burst} symbol{'s' * (burst > 1)}"
            if name == OWN and step:
                result.busy = max(result.busy, step.busy)
            result.add(Figure(f"{label}", step.frames if step else None, Unit.PER_SECOND))
            if limit and step and name != LIMIT:
                result.add(
                    Figure(
                        f"{label}, to the bare loop", ratio(step.frames, limit.frames), Unit.RATIO
                    )
                )
    return result
