"""Servers with tight limits. The tests that share one leave it as it was."""

from collections.abc import Iterator

import pytest

from tests.processes import ServerProcess

ORIGIN = "https://quotes.example"
AUDIENCE = "quotes"
ISSUER = "https://issuer.example"


@pytest.fixture(scope="package")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with one place, one allowed origin, and tokens for one audience by one issuer."""
    with ServerProcess(
        tmp_path_factory.mktemp("strict"),
        WS_MAX_CONNECTIONS="1",
        WS_ALLOWED_ORIGINS=f"https://other.example, {ORIGIN}",
        JWT_AUDIENCE=AUDIENCE,
        JWT_ISSUER=ISSUER,
    ) as process:
        yield process


@pytest.fixture(scope="package")
def throttled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that takes one command a second, two at once."""
    with ServerProcess(tmp_path_factory.mktemp("throttled"), WS_COMMAND_RATE="1") as process:
        yield process
