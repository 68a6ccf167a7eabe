"""How the pages' requests honour `Retry-After`: the scenarios of requests.mjs."""

import json

from tests.browser_client.node import run


def test_requests_wait_as_the_server_asks():
    """A wait holds up its own token only, and a refusal counts whatever its body is."""
    outcomes = json.loads(run("requests.mjs"))
    assert len(outcomes) > 10
    assert [error for error in outcomes.values() if error] == []
