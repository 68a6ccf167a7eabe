"""Collects what goes wrong on pages while a test drives it."""

import re

from playwright.sync_api import BrowserContext, ConsoleMessage, Request, WebError

REPORT_VIOLATIONS = """
addEventListener("securitypolicyviolation", (event) => console.error(
  `Content-Security-Policy: ${event.effectiveDirective} refused ${event.blockedURI || "a script"}`));
"""
"""A script that reports each violation of the policy. Chromium's own message misses some of them."""


class Faults:
    """All errors of a test's pages: of the console, scripts, the policy and requests.

    A test names the errors that it causes itself by `expect`. It fails for any other one.
    """

    def __init__(self, context: BrowserContext) -> None:
        self._seen: list[str] = []
        self._expected: list[re.Pattern[str]] = []
        context.on("console", self._console)
        context.on("weberror", self._exception)
        context.on("requestfailed", self._request)
        context.add_init_script(REPORT_VIOLATIONS)

    def expect(self, *patterns: str) -> None:
        """Let errors pass that match one of the regular expressions."""
        self._expected += [re.compile(each) for each in patterns]

    @property
    def unexpected(self) -> list[str]:
        """Return the errors so far that no test has expected."""
        return [
            each for each in self._seen if not any(known.search(each) for known in self._expected)
        ]

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self._seen.append(f"console: {message.text} ({message.location['url']})")

    def _exception(self, error: WebError) -> None:
        self._seen.append(f"exception: {error.error}")

    def _request(self, request: Request) -> None:
        # A page gives up requests that it no longer needs, or that it leaves behind.
        if request.failure != "net::ERR_ABORTED":
            self._seen.append(f"request: {request.failure} {request.url}")
