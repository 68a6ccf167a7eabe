"""Fixtures shared by all tests."""

import asyncio
import gc
import signal
from collections.abc import Iterator

import pytest
import trio_asyncio
from hypothesis import settings

from bench.trading_day import describe
from tests.processes import ServerProcess

pytest_plugins = ["tests.services", "tests.reporting", "tests.memory_server", "tests.time_limit"]


def pytest_configure() -> None:
    """Prepare the process."""
    # Child processes must receive Ctrl-C. A shell that runs the tests in its background ignores it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # A busy machine stops a test at any moment, so the time of a Hypothesis example says nothing.
    settings.register_profile("patient", deadline=None)
    settings.load_profile("patient")
    # Outside trio, asyncio's own loop: that of trio-asyncio cannot run Playwright.
    assert trio_asyncio
    asyncio.set_event_loop_policy(asyncio.DefaultEventLoopPolicy())


def pytest_collection_finish() -> None:
    """Keep collections short: without this, each looks at the modules and at 3,000 tests again."""
    gc.collect()
    gc.freeze()


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes by their argument. Compressed ones hold the time, and all processes that run tests
    must give each test the same name.
    """
    return argname if isinstance(val, bytes) else None


def pytest_report_header() -> str:
    return f"trading day: {describe()}"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Start a server whose prices move ten times a second, for tests that leave it as it was."""
    with ServerProcess(
        tmp_path_factory.mktemp("server"),
        PRICE_UPDATE_INTERVAL="100ms",
        WS_MAX_SYMBOLS="20",
        WS_MAX_CONNECTIONS_PER_USER="5",
    ) as process:
        yield process
