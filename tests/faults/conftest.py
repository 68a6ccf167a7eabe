"""File descriptors for many clients."""

import resource
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="package", autouse=True)
def descriptors() -> Iterator[int]:
    """Raise the limit of descriptors to the machine's own, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard if hard > 0 else 1 << 20
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
