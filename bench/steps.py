"""Finds the highest rate of a server, step by step.

Each step has a new process and new connections: so servers can take turns, and no step inherits
queues. The rate doubles until a step fails. Then the gap is halved (geometrically).
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import sqrt
from time import monotonic

from bench.figures import BUSY, Result, Unit, written
from bench.latency import Percentiles
from bench.load import SETTLE, Options, connect, measure, open_generator
from bench.screen import show
from bench.target import Target, TargetError

FIRST_RATE = 16.0
"""Rounds a second: 16,000 frames with 1,000 connections."""

SLOWEST_RATE = 0.5
"""The lowest rate to try. If FIRST_RATE is too high, it is halved down to this."""

HIGHEST_RATE = 1000.0
"""The rate at which the search ends."""

HALVINGS = 2
"""Halvings of the gap between the last good and the first bad step: a factor of 1.19 is left."""

SHORTEST = 0.25
"""Seconds of the shortest step: four rounds of FIRST_RATE. Fewer cannot tell good from bad."""

TRIES = 2
"""Tries of a failing step, as the machine may have been busy with other work."""

LATENCY_LIMIT = 0.250
"""Seconds: a step with a higher p99 has failed."""

DELIVERED_SHARE = 0.97
"""Share of the offered frames that a good step delivers, not counting one round that the window may
cut.
"""

SAMPLE = 50
"""One connection in SAMPLE records when it got each update, the others count frames."""

Start = Callable[[float], AbstractContextManager[Target]]
"""Starts a server that sends a number of rounds a second."""


@dataclass(frozen=True)
class Step:
    """The result of one rate: `frames` delivered a second, of those `offered`.

    `one_round` is the frames of one round as a rate over the step. `busy` is the generator's share of
    its core.
    """

    rate: float
    frames: float
    latency: Percentiles | None
    core: float | None
    busy: float
    failures: int
    offered: float
    one_round: float

    @property
    def good(self) -> bool:
        """Return whether server and generator kept up. A busy generator cannot measure the server."""
        return (
            not self.failures
            and self.busy <= BUSY
            and self.latency is not None
            and self.latency.p99 <= LATENCY_LIMIT
            and self.frames >= DELIVERED_SHARE * self.offered - self.one_round
        )


def run_step(start: Start, rate: float, burst: int, symbols: str, options: Options) -> Step:
    """Measure one rate."""
    connections, seconds = options.connections, options.duration
    scrap = Result("step", "")
    offered, one_round = rate * burst * connections, burst * connections / seconds
    with start(rate) as target, open_generator(target, options.form) as generator:
        try:
            connect(generator, target, connections, lambda _: symbols, sample=SAMPLE)
        except TargetError:
            # A server that cannot even let clients in beside this load has failed at it.
            return Step(rate, 0, None, None, 0, generator.pending, offered, one_round)
        # Frames delayed by connecting do not count.
        generator.run_until(monotonic() + SETTLE)
        window = measure(target, generator, seconds, scrap)
        return Step(
            rate,
            window.frames / window.seconds,
            generator.latencies.percentiles(),
            window.core,
            window.busy,
            generator.failed.total(),
            offered,
            one_round,
        )


class Search:
    """Finds one server's highest good rate: try `next_rate` and `note` the step until it is None."""

    def __init__(self) -> None:
        self.best: Step | None = None
        self.worst: Step | None = None
        self._halvings = 0

    @property
    def next_rate(self) -> float | None:
        """Return the rate to try next, None at the end."""
        good = self.best.rate if self.best else None
        bad = self.worst.rate if self.worst else None
        if good is None:
            rate = FIRST_RATE if bad is None else bad / 2
            return rate if rate >= SLOWEST_RATE else None
        if bad is None:
            return good * 2 if good < HIGHEST_RATE else None
        return sqrt(good * bad) if self._halvings < HALVINGS else None

    def note(self, step: Step) -> None:
        """Note the result of a step."""
        self._halvings += self.best is not None and self.worst is not None
        if step.good:
            self.best = step
        else:
            self.worst = step


Entrants = dict[str, Start]
"""Servers by name."""


def search_all(
    entrants: Entrants, burst: int, symbols: str, options: Options
) -> dict[str, Step | None]:
    """Return each entrant's last good step. The entrants take turns at every step. A step lasts the
    duration of `options`.

    Errors: TargetError for steps that are too short.
    """
    if options.duration < SHORTEST:
        raise TargetError(
            f"steps of {options.duration:g} s are too short to say: use {SHORTEST:g} s or more"
        )
    searches = {name: Search() for name in entrants}
    while any(search.next_rate for search in searches.values()):
        for name, search in searches.items():
            if rate := search.next_rate:
                for _ in range(TRIES):
                    step = run_step(entrants[name], rate, burst, symbols, options)
                    show(f"{name:<16} {describe(step)}")
                    if step.good:
                        break
                search.note(step)
    return {name: search.best for name, search in searches.items()}


def describe(step: Step) -> str:
    """Describe a step in one line."""
    p99 = written(step.latency.p99 if step.latency else None, Unit.SECONDS)
    return (
        f"{step.rate:8.1f} rounds/s  {step.frames:12,.0f} of {step.offered:12,.0f} frames/s  "
        f"p99 {p99:>12}  {'good' if step.good else 'too much'}"
    )
