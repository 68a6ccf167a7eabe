"""Skips the tests of `quotes.js` on a machine without Node."""

import shutil

import pytest


@pytest.fixture(autouse=True, scope="session")
def node() -> None:
    """Skip the tests if there is no Node."""
    if shutil.which("node") is None:
        pytest.skip("Node is not installed, so quotes.js was not tested")
