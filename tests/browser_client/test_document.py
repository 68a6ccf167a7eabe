"""The page in docs/browsers.md shows quotes in a real browser, as it is written there."""

import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import server
from tests.processes import START_TIMEOUT, ServerProcess, eventually, make_token
from tests.programs import program

ROOT = Path(__file__).parents[2]

DOCUMENT = (ROOT / "docs" / "browsers.md").read_text()

PAGE = re.findall(r"^```html\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)[0]

SYMBOLS = ["AAPL", "MSFT", "TSLA"]

WITNESS = """<script>
const tell = () => fetch("/seen", { method: "POST", body: document.body.outerHTML });
setInterval(tell, 200);
new MutationObserver(tell).observe(document.getElementById("state"), { childList: true });
</script>"""
"""Tells the test what the page shows, and each of its states."""


@contextmanager
def site(page: str) -> Iterator[tuple[str, list[str]]]:
    """Serve a page with `quotes.js` beside it and a token. Return its address, and what it shows.

    The first answer about the token is an error.
    """
    seen: list[str] = []
    errors = {"/token": 503}
    module = (Path(server.__file__).parent / "web" / "quotes.js").read_text()
    answers = {
        "/": ("text/html", page + WITNESS),
        "/quotes.js": ("text/javascript", module),
        "/token": ("text/plain", make_token()),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, body = answers.get(self.path, ("text/plain", ""))
            self.send_response(errors.pop(self.path, 200))
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.end_headers()
            self.wfile.write(body.encode())

        def do_POST(self) -> None:
            seen.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}/", seen
        http.shutdown()


def test_page_has_24_lines():
    """The page stays as short as a web developer may hope."""
    assert len(PAGE.splitlines()) <= 24


def test_page_shows_quotes(tmp_path):
    """A browser shows the state and a row for each symbol. It comes back if it gets no token."""
    browser = program("chromium", "chromium-browser", package="chromium")
    with ServerProcess(tmp_path) as quotes:
        page = PAGE.replace("ws://127.0.0.1:8080/ws/quotes", quotes.quotes_url)
        assert page != PAGE
        with site(page) as (address, seen), running(browser, tmp_path / "profile", address):
            eventually(lambda: bool(seen) and shows_quotes(seen[-1]), START_TIMEOUT)
            assert any("waiting: Error: /token answers 503" in each for each in seen)


def shows_quotes(body: str) -> bool:
    rows = [rf"<td>{symbol}</td><td>[0-9.]+</td><td>-?[0-9.]+</td>" for symbol in SYMBOLS]
    return all(re.search(part, body) for part in [r'role="status">live<', *rows])


@contextmanager
def running(browser: str, profile: Path, address: str) -> Iterator[None]:
    """Run a browser without a screen that shows `address`."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    process = subprocess.Popen(
        [browser, *options, "--remote-debugging-port=0", f"--user-data-dir={profile}", address],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        # The browser's own processes belong to its group.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
