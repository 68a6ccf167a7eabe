"""Waiting while a page goes on."""

import time
from collections.abc import Callable

from playwright.sync_api import Page

from tests.processes import TIMEOUT

PAUSE = 20
"""Milliseconds between two looks. Playwright passes on the page's events meanwhile."""


def until(page: Page, check: Callable[[], bool], timeout: float = TIMEOUT) -> None:
    """Poll until `check` is true. Errors: AssertionError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not check():
        assert time.monotonic() < deadline, "it never came true"
        page.wait_for_timeout(PAUSE)
