"""How `quotes.js` comes back, sleeps and finds gaps: the scenarios of behaviour.mjs."""

import json
import re

import pytest

from tests.browser_client.node import RUNNERS, run

SCENARIOS = re.findall(r'^scenario\("(\w+)"', (RUNNERS / "behaviour.mjs").read_text(), re.MULTILINE)


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str | None]:
    """Play all scenarios in one process of Node."""
    played: dict[str, str | None] = json.loads(run("behaviour.mjs", flags=["--expose-gc"]))
    return played


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(scenario, outcomes):
    """The scenario goes well."""
    assert outcomes[scenario] is None, outcomes[scenario]


def test_each_scenario_is_played(outcomes):
    """No scenario was left out."""
    assert sorted(outcomes) == sorted(SCENARIOS)
    assert len(SCENARIOS) > 30
