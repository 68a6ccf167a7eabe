"""The operators' page while a part of the server gives no answer."""

import re

from playwright.sync_api import Route, expect

from tests.browser.test_ops import open_page
from tests.browser.waiting import until
from tests.processes import ServerProcess


def test_development_server_that_is_busy_at_first(page, faults, tmp_path):
    """The page did not learn that the server gives tokens. It asks the server before the developer."""
    faults.expect("status of (401|503)")
    busy = iter([503])

    def refuse(route: Route) -> None:
        if next(busy, None):
            route.fulfill(status=503, json={"error": {"code": "busy", "message": "Too busy"}})
        else:
            route.continue_()

    page.route("**/web/config.json*", refuse)
    with ServerProcess(tmp_path, JWT_SECRET="") as server:
        page.goto(f"{server.http_url}/ops")
        expect(page.locator("#age")).to_have_text("Up to date")
        expect(page.get_by_role("dialog")).to_be_hidden()


def test_old_clients_are_told(page, faults, tmp_path):
    """The numbers of the hour come, but the clients do not. The page is not up to date."""
    faults.expect("status of 503")
    page.clock.install()
    with ServerProcess(tmp_path) as server:
        open_page(page, server)
        expect(page.locator("#age")).to_have_text("Up to date")
        error = {"error": {"code": "busy", "message": "Too busy."}}
        page.route("**/ops/clients?*", lambda route: route.fulfill(status=503, json=error))
        until(
            page, lambda: page.clock.run_for(1000) is None and page.locator("#banner").is_visible()
        )
        expect(page.locator("#banner")).to_have_text(re.compile(r"\d+ s old\.\s+Too busy\."))
        page.unroute("**/ops/clients?*")
        until(
            page, lambda: page.clock.run_for(1000) is None and page.locator("#banner").is_hidden()
        )
