"""The scenarios: one file each, with the load it makes and the figures it tells.

Each has `run(options)` and its defaults: CONNECTIONS, DURATION in seconds and RATE, whose meaning
its docstring says.
"""

from types import ModuleType

from bench.scenarios import (
    burst,
    churn,
    establish,
    growth,
    portfolio,
    replay,
    saturate,
    slow,
    soak,
    storm,
)

SCENARIOS: dict[str, ModuleType] = {
    module.__name__.rpartition(".")[2]: module
    for module in (establish, portfolio, burst, saturate, churn, storm, slow, replay, growth)
}
"""By name, in the order in which `all` runs them."""

LONG: dict[str, ModuleType] = {"soak": soak}
"""Takes hours, so `all` leaves it out."""
