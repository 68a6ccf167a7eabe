"""A pytest plugin for mutation runs. The quickest tests come first, as any one may kill a mutant."""

import json
from math import inf
from pathlib import Path

import pytest

STATS = Path("mutmut-stats.json")
"""Mutmut's notes about the tests, in the directory of the mutants, where the tests run."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the tests by their durations, once these are known."""
    if STATS.exists():
        seconds = json.loads(STATS.read_text())["duration_by_test"]
        items.sort(key=lambda item: seconds.get(item.nodeid, inf))
