"""A server that takes prices, one for each file of tests."""

from collections.abc import Iterator

import pytest

from tests.processes import ServerProcess


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Start a server that takes prices."""
    folder = tmp_path_factory.mktemp("pushed")
    with ServerProcess(folder, FEED="push", TRUSTED_PROXIES="127.0.0.0/8") as process:
        yield process
