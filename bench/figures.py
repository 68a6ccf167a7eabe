"""The results of scenarios: named figures with targets, and whether the result is valid."""

from datetime import UTC, datetime
from enum import Enum
from math import isfinite
from typing import Any, NamedTuple

from hdrh.histogram import HdrHistogram

from bench.latency import Percentiles, Second

BUSY = 0.9
"""The generator's share of a core above which the result measures it instead of the server."""


class Unit(Enum):
    """The units of figures, as written in JSON."""

    SECONDS = "s"
    BYTES = "B"
    CORE = "of a core"
    PER_SECOND = "/s"
    BYTES_PER_SECOND = "B/s"
    RATIO = "×"
    MICROSECONDS = "µs"
    COUNT = ""


class Figure(NamedTuple):
    """A named value, None if the run was too short for it or nothing could be read.

    `must` and `aim` are upper bounds, or lower if `at_least`.
    """

    name: str
    value: float | None
    unit: Unit
    must: float | None = None
    aim: float | None = None
    at_least: bool = False

    @property
    def verdict(self) -> str:
        """Return `aim`, `met` or `missed`; empty without a target or a value."""
        if self.value is None or (self.must is None and self.aim is None):
            return ""
        if self.aim is not None and self._reaches(self.aim):
            return "aim"
        return "met" if self.must is not None and self._reaches(self.must) else "missed"

    def _reaches(self, bound: float) -> bool:
        assert self.value is not None
        return self.value >= bound if self.at_least else self.value <= bound


class Result:
    """The result of one scenario.

    `at` is when it began, in UTC. `setting` describes the load. `busy` is the generator's share of its
    core. `wrong` lists reasons that make the result a failure with any figures.
    """

    def __init__(self, scenario: str, setting: str) -> None:
        self.at = datetime.now(UTC)
        self.scenario = scenario
        self.setting = setting
        self.figures: list[Figure] = []
        self.wrong: list[str] = []
        self.busy = 0.0
        self.histogram: HdrHistogram | None = None
        self.timeline: list[Second] = []

    @property
    def valid(self) -> bool:
        """Return whether the server was measured and not the generator."""
        return self.busy <= BUSY

    @property
    def good(self) -> bool:
        """Return whether the result is valid and nothing went wrong, even if targets were missed."""
        return self.valid and not self.wrong

    def add(self, *figures: Figure) -> None:
        """Append figures, each under a name of its own. A value that is not a finite number is None."""
        for figure in figures:
            assert all(each.name != figure.name for each in self.figures), figure.name
            known = figure.value is not None and isfinite(figure.value)
            self.figures.append(figure if known else figure._replace(value=None))

    def add_latency(self, found: Percentiles | None, must: "Targets", aim: "Targets") -> None:
        """Append the four latency figures, in seconds."""
        for name in Percentiles._fields:
            value = getattr(found, name) if found else None
            self.add(Figure(f"latency {name}", value, Unit.SECONDS, must.get(name), aim.get(name)))

    def as_json(self) -> dict[str, Any]:
        """Return the figures by name, in base units (seconds, bytes, shares)."""
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


def ratio(value: float | None, other: float | None) -> float | None:
    """Return `value / other`; None if either is unknown, or if `other` is zero."""
    return value / other if value is not None and other else None


Targets = dict[str, float]
"""Bounds by percentile, in seconds."""


def written(value: float | None, unit: Unit) -> str:
    """Format a figure for people."""
    if value is None:
        return "unknown"
    scale, decimals, name = _SCALES.get(
        (unit, abs(value) < _SMALL.get(unit, 0)), (1, 0, unit.value)
    )
    return f"{value * scale:,.{decimals}f} {name}".rstrip()


_SMALL = {Unit.SECONDS: 10, Unit.BYTES: 1e6, Unit.BYTES_PER_SECOND: 1e6}
"""Values below which the smaller scale is used."""

_SCALES = {
    (Unit.SECONDS, True): (1e3, 1, "ms"),
    (Unit.SECONDS, False): (1, 1, "s"),
    (Unit.BYTES, False): (1e-6, 1, "MB"),
    (Unit.BYTES_PER_SECOND, True): (1e-3, 1, "KB/s"),
    (Unit.BYTES_PER_SECOND, False): (1e-6, 2, "MB/s"),
    (Unit.CORE, False): (100, 1, "% of a core"),
    (Unit.RATIO, False): (1, 2, "×"),
    (Unit.MICROSECONDS, False): (1, 1, "µs"),
}
"""Factor, decimals and suffix, by unit and whether the value is small."""
