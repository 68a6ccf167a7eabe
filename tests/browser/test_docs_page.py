"""The API's description as a page, and the page that lists all routes."""

from playwright.sync_api import expect

from tests.browser.looks import check_looks
from tests.processes import make_token


def test_docs_try_a_route_out(page, server):
    """A visitor enters a token and a symbol, and reads the answer."""
    page.goto(f"{server.http_url}/docs")
    page.get_by_role("textbox", name="Token (quotestream").fill(make_token("reader"))
    route = page.get_by_role("group").filter(has_text="GET/quotes Live")
    route.get_by_text("GET/quotes Live").click()
    route.get_by_label("symbols").fill("AAPL")
    route.get_by_role("button", name="Send").click()
    expect(route.locator("pre")).to_contain_text("current_price")
    check_looks(page, "docs")
