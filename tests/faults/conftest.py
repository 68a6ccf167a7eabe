"""Room for crowds."""

import resource
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="package", autouse=True)
def descriptors() -> Iterator[int]:
    """How many descriptors tests and servers may have: as many as the machine allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard if hard > 0 else 1 << 20
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
