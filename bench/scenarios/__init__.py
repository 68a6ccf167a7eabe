"""The scenarios: one file each, with its load and its figures.

Each has `run(options)` and its defaults: CONNECTIONS, DURATION in seconds, and RATE, which its
docstring explains.
"""

from types import ModuleType

from bench.scenarios import (
    burst,
    churn,
    establish,
    growth,
    portfolio,
    publish,
    replay,
    saturate,
    slow,
    soak,
    storm,
)

SCENARIOS: dict[str, ModuleType] = {
    module.__name__.rpartition(".")[2]: module
    for module in (
        establish,
        portfolio,
        burst,
        saturate,
        churn,
        storm,
        slow,
        replay,
        publish,
        growth,
    )
}
"""Scenarios by name, in the order in which `all` runs them."""

LONG: dict[str, ModuleType] = {"soak": soak}
"""Scenarios that take hours, so `all` leaves them out."""
