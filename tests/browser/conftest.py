"""Fixtures of a real browser: one Chromium for each process of the tests, one context for each test.

No test downloads a browser. Playwright drives Debian's Chromium, which `scripts/test` installs.
"""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.browser.board import Board
from tests.browser.faults import Faults
from tests.processes import TIMEOUT, ServerProcess
from tests.programs import program


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Start Chromium. It ends with the package: Playwright occupies the thread's asyncio loop."""
    found = program("chromium", "chromium-browser", package="chromium")
    with sync_playwright() as playwright:
        # Chromium's sandbox refuses root, and a container may have little shared memory.
        options = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=found, args=options)
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """Open an empty profile, with 1440 by 900 pixels in light colours."""
    context = browser.new_context(
        viewport={"width": 1440, "height": 900},
        color_scheme="light",
        reduced_motion="no-preference",
    )
    context.set_default_timeout(1000 * TIMEOUT)
    yield context
    context.close()


@pytest.fixture
def faults(context: BrowserContext) -> Iterator[Faults]:
    """Fail the test for each error of its pages that the test has not expected."""
    faults = Faults(context)
    yield faults
    assert not faults.unexpected, "\n".join(faults.unexpected)


@pytest.fixture
def page(context: BrowserContext, faults: Faults) -> Page:
    """Open an empty page, whose errors fail the test."""
    return context.new_page()


@pytest.fixture(scope="module")
def development(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Start a server as `scripts/serve` does, with a development token and quick prices."""
    folder = tmp_path_factory.mktemp("page")
    with ServerProcess(folder, JWT_SECRET="", PRICE_UPDATE_INTERVAL="200ms") as process:
        yield process


@pytest.fixture
def board(page: Page, development: ServerProcess) -> Board:
    """Return the page `/` of the development server, which is not open yet."""
    return Board(page, development)
