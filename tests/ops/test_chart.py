"""A real chart library draws a day of the datafeed in a real browser."""

import http.client
import json
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.ops.test_udf import EVERYTHING, udf
from tests.processes import TIMEOUT, ServerProcess, eventually, make_token
from tests.publisher import post

PACKAGE = "lightweight-charts@5.2.1"

LIBRARY = "package/dist/lightweight-charts.standalone.production.js"

PAGE = Path(__file__).with_name("chart.html")

NPM_TIMEOUT, BROWSER_TIMEOUT = 60, 60

ROWS = 400
"""Trades of the day that is drawn, one a minute."""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the chart library, from npm."""
    npm, folder = shutil.which("npm"), tmp_path_factory.mktemp("npm")
    if npm is None:
        pytest.skip("npm is not installed, so the chart library cannot be fetched")
    done = subprocess.run(
        [npm, "pack", PACKAGE], cwd=folder, capture_output=True, timeout=NPM_TIMEOUT, check=False
    )
    found = [*folder.glob("*.tgz")]
    if done.returncode or not found:
        pytest.skip("npm's registry is not reachable, so the chart library cannot be fetched")
    with tarfile.open(found[0]) as archive:
        file = archive.extractfile(LIBRARY)
        assert file is not None
        return file.read()


@pytest.fixture(scope="module")
def browser() -> str:
    """Return the path of Chromium."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("chromium is not installed, so no browser can draw the chart")
    return found


class Front(BaseHTTPRequestHandler):
    """The page's own server: the page and the library, and the datafeed behind `/udf`."""

    server: Any

    def do_GET(self) -> None:
        if self.path.startswith("/udf/"):
            host, port = self.server.feed
            connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT)
            connection.request("GET", self.path)
            body = connection.getresponse().read()
            connection.close()
        elif self.path == "/lightweight-charts.js":
            body = self.server.library
        else:
            body = PAGE.read_bytes()
        kind = "text/html" if self.path.startswith("/?") else "text/javascript"
        self._answer(body, kind)

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.server.drawn.append(json.loads(self.rfile.read(length)))
        self._answer(b"{}", "application/json")

    def log_message(self, *_: object) -> None:
        """Keep the test's output short."""

    def _answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def front(feed: ServerProcess, library: bytes) -> Iterator[Any]:
    """Run the page's own server. `drawn` has what the page tells of its chart."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Front) as server:
        server.feed, server.library = feed.http_address, library  # type: ignore[attr-defined]  # for Front
        server.drawn = []  # type: ignore[attr-defined]  # Front fills it
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_chart_draws_a_day(tmp_path, library, browser):
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
    shot = tmp_path / "chart.png"
    with ServerProcess(tmp_path, FEED="push") as feed, front(feed, library) as server:
        assert post(feed, day).body["rejected"] == []
        eventually(lambda: len(udf(feed, "history", **EVERYTHING).get("t", [])) == ROWS, 30)
        subprocess.run(
            [
                *[browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"],
                *["--window-size=1000,600", "--virtual-time-budget=15000"],
                *[f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={shot}"],
                f"http://127.0.0.1:{server.server_port}/?token={make_token('chart')}",
            ],
            capture_output=True,
            timeout=BROWSER_TIMEOUT,
            check=True,
        )
        (drawn,) = server.drawn
        assert "error" not in drawn, drawn
        found = udf(feed, "history", **(EVERYTHING | {"resolution": "5"}))
    assert (drawn["t"], drawn["c"]) == (found["t"], found["c"])
    assert drawn["drawn"] == len(found["t"]) == ROWS // 5
    assert "5" in drawn["resolutions"]
    assert drawn["up"] > 500
    assert drawn["down"] > 500
    assert shot.stat().st_size > 10_000
