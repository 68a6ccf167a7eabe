"""A page of another origin uses the API in a real browser."""

from tests.processes import ServerProcess, make_token

ASK = """
async ([address, headers]) => {
  try {
    const response = await fetch(address, { headers });
    const known = ["etag", "next-page-token"].filter((name) => response.headers.has(name));
    return [response.status, known, await response.text()];
  } catch (error) { return [0, [], String(error)]; }
}
"""


def open_origin(page, server: ServerProcess) -> str:
    """Open an answer as a page, and return its origin. Only Chromium itself asks for an icon."""
    origin = f"http://localhost:{server.http_address[1]}"
    page.goto(f"{origin}/version")
    return origin


def test_page_of_an_allowed_origin_reads_answers_and_errors(tmp_path, server, page, faults):
    """The page shows its token, reads the headers, and sees why it is refused without one."""
    faults.expect("401", "favicon.ico")
    authorization = {"Authorization": f"Bearer {make_token()}"}
    origin = open_origin(page, server)
    with ServerProcess(tmp_path, HTTP_ALLOWED_ORIGINS=origin) as other:

        def ask(path, headers):
            return page.evaluate(ASK, [other.http_url + path, headers])

        status, _, body = ask("/quotes?symbols=AAPL", {})
        assert status == 401
        assert '"code":"unauthorized"' in body
        assert ask("/instruments?limit=1", authorization)[:2] == [200, ["etag", "next-page-token"]]
        assert ask("/instruments/AAPL", authorization)[:2] == [200, ["etag"]]


def test_page_of_another_origin_reads_nothing(server, page, faults):
    """The browser hides the answers, as the server does not allow the page's origin."""
    faults.expect("CORS policy", "ERR_FAILED", "401", "favicon.ico")
    open_origin(page, server)
    _, _, error = page.evaluate(ASK, [f"{server.http_url}/quotes?symbols=AAPL", {}])
    assert error == "TypeError: Failed to fetch"
