"""All tests of `quotes.js` need Node."""

import pytest

from tests.programs import program


@pytest.fixture(autouse=True, scope="session")
def node() -> None:
    """Look for Node before the tests."""
    program("node", package="nodejs")
