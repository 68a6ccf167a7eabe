"""What a scenario has to say: named figures, the targets they are held to, and whether they count."""

from enum import Enum
from typing import Any, NamedTuple

from hdrh.histogram import HdrHistogram

from bench.latency import Percentiles, Second

BUSY = 0.9
"""Share of a core above which the generator, not the server, is what was measured."""


class Unit(Enum):
    """What a number counts, and how it is written."""

    SECONDS = "s"
    BYTES = "B"
    CORE = "of a core"
    PER_SECOND = "/s"
    BYTES_PER_SECOND = "B/s"
    RATIO = "×"
    MICROSECONDS = "µs"
    COUNT = ""


class Figure(NamedTuple):
    """`must` and `aim` are bounds from above, or from below if `at_least`; `value` None is unknown."""

    name: str
    value: float | None
    unit: Unit
    must: float | None = None
    aim: float | None = None
    at_least: bool = False

    @property
    def verdict(self) -> str:
        """`aim`, `met` or `missed`; nothing where there is no target or no value."""
        if self.value is None or (self.must is None and self.aim is None):
            return ""
        if self.aim is not None and self._reaches(self.aim):
            return "aim"
        return "met" if self.must is not None and self._reaches(self.must) else "missed"

    def _reaches(self, bound: float) -> bool:
        assert self.value is not None
        return self.value >= bound if self.at_least else self.value <= bound


class Result:
    """One scenario's outcome.

    `setting` says what was run; `busy` is the generator's share of its core; `wrong` lists what
    makes the outcome a failure whatever the figures say.
    """

    def __init__(self, scenario: str, setting: str) -> None:
        self.scenario = scenario
        self.setting = setting
        self.figures: list[Figure] = []
        self.wrong: list[str] = []
        self.busy = 0.0
        self.histogram: HdrHistogram | None = None
        self.timeline: list[Second] = []

    @property
    def valid(self) -> bool:
        """Whether the server, not the generator, was measured."""
        return self.busy <= BUSY

    @property
    def good(self) -> bool:
        """Whether it counts and nothing went wrong; targets that are missed do not matter here."""
        return self.valid and not self.wrong

    def add(self, *figures: Figure) -> None:
        """Append figures."""
        self.figures += figures

    def add_latency(self, found: Percentiles | None, must: "Targets", aim: "Targets") -> None:
        """Append the four latency figures, in seconds."""
        for name in Percentiles._fields:
            value = getattr(found, name) if found else None
            self.add(Figure(f"latency {name}", value, Unit.SECONDS, must.get(name), aim.get(name)))

    def as_json(self) -> dict[str, Any]:
        """For machines: figures by name in base units (seconds, bytes, shares)."""
        return {
            "scenario": self.scenario,
            "setting": self.setting,
            "valid": self.valid,
            "wrong": self.wrong,
            "figures": {
                figure.name: {
                    "value": figure.value,
                    "unit": figure.unit.value,
                    "must": figure.must,
                    "aim": figure.aim,
                    "verdict": figure.verdict,
                }
                for figure in self.figures
            },
            "timeline": [second._asdict() for second in self.timeline],
        }


Targets = dict[str, float]
"""Bounds by percentile, in seconds."""


def written(value: float | None, unit: Unit) -> str:
    """A figure for people."""
    if value is None:
        return "unknown"
    scale, decimals, name = _SCALES.get(
        (unit, abs(value) < _SMALL.get(unit, 0)), (1, 0, unit.value)
    )
    return f"{value * scale:,.{decimals}f} {name}".rstrip()


_SMALL = {Unit.SECONDS: 10, Unit.BYTES: 1e6}
"""Below these the smaller scale is used."""

_SCALES = {
    (Unit.SECONDS, True): (1e3, 1, "ms"),
    (Unit.SECONDS, False): (1, 1, "s"),
    (Unit.BYTES, False): (1e-6, 1, "MB"),
    (Unit.BYTES_PER_SECOND, False): (1e-6, 2, "MB/s"),
    (Unit.CORE, False): (100, 1, "% of a core"),
    (Unit.RATIO, False): (1, 2, "×"),
    (Unit.MICROSECONDS, False): (1, 1, "µs"),
}
"""Unit and whether the value is small: factor, decimals, and what is written behind it."""
