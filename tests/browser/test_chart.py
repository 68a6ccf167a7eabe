"""A real chart library draws a day of the datafeed in a real browser."""

from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.browser.looks import take_picture
from tests.npm import packed_file
from tests.ops.test_udf import EVERYTHING, udf
from tests.processes import ServerProcess, eventually, make_token
from tests.publisher import post

PACKAGE = "lightweight-charts@5.2.1"

LIBRARY = "package/dist/lightweight-charts.standalone.production.js"

PAGE = Path(__file__).with_name("chart.html")

ROWS = 400
"""Trades of the day that is drawn, one a minute."""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the chart library, from npm."""
    return packed_file(PACKAGE, LIBRARY, tmp_path_factory.mktemp("npm"))


def open_chart(page: Page, feed: ServerProcess, library: bytes) -> None:
    """Open the page with the chart at the datafeed's address, as if the server had it."""
    page.route("**/chart.html*", lambda route: route.fulfill(path=PAGE))
    script = "text/javascript"
    page.route(
        "**/lightweight-charts.js",
        lambda route: route.fulfill(body=library, content_type=script),
    )
    page.goto(f"{feed.http_url}/chart.html?token={make_token('chart')}")


def test_chart_draws_a_day(tmp_path, library, page):
    """Each bar of the datafeed is a candle, and candles of both colours are on the page."""
    start = 1_795_617_000
    day = [
        {
            "symbol": "AAPL",
            "price": 170 + abs((number * 7) % 60 - 30) / 10 + number / 100,
            "size": 100 + number % 17 * 10,
            "ts": (start - 86_400 + 60 * number) * 1_000_000,
        }
        for number in range(ROWS)
    ]
    with ServerProcess(tmp_path, FEED="push") as feed:
        assert post(feed, day).body["rejected"] == []
        eventually(lambda: len(udf(feed, "history", **EVERYTHING).get("t", [])) == ROWS, 30)
        open_chart(page, feed, library)
        drawn = page.evaluate("drawn")
        take_picture(page, "chart")
        shot = page.screenshot()
        found = udf(feed, "history", **(EVERYTHING | {"resolution": "5"}))
    assert (drawn["t"], drawn["c"]) == (found["t"], found["c"])
    assert drawn["drawn"] == len(found["t"]) == ROWS // 5
    assert "5" in drawn["resolutions"]
    assert drawn["up"] > 500
    assert drawn["down"] > 500
    assert len(shot) > 10_000
