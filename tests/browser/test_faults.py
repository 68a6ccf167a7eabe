"""The tests of pages fail for errors that no test expects."""

import pytest

from tests.browser.looks import violations
from tests.browser.waiting import until

PAGES = {
    "console": '<script>console.error("broken")</script>',
    "exception": "<script>null.broken</script>",
    "promise": '<script>Promise.reject(new Error("broken"))</script>',
    "script": '<script src="https://elsewhere.invalid/broken.js"></script>',
    "image": '<img src="https://elsewhere.invalid/broken.png">',
    "style": '<p style="color: red">broken</p>',
    "missing": '<img src="/missing.png">',
    "refused": '<script>fetch("/cut")</script>',
}
"""Bodies of pages, each with one error."""

NAMES = {
    "console": "console: broken",
    "exception": "exception: Cannot read",
    "promise": "exception: broken",
    "script": "Content-Security-Policy: script-src-elem",
    "image": "Content-Security-Policy: img-src",
    "style": "Content-Security-Policy: style-src-attr",
    "missing": "404",
    "refused": "request: net::ERR_FAILED",
}
"""A part of the error that each page must cause."""

POLICY = "default-src 'self'; script-src 'self' 'unsafe-inline'"


@pytest.mark.parametrize("fault", PAGES)
def test_each_error_is_noticed(page, faults, fault):
    """Errors of the console, of scripts, of the policy and of the network fail a test."""

    def answer(route):
        path = route.request.url.removeprefix("http://page.invalid")
        if path == "/":
            head = {"Content-Type": "text/html", "Content-Security-Policy": POLICY}
            route.fulfill(body=PAGES[fault], headers=head)
        elif path == "/cut":
            route.abort()
        else:
            route.fulfill(status=404)

    page.route("**/*", answer)
    page.goto("http://page.invalid/")
    until(page, lambda: any(NAMES[fault] in each for each in faults.unexpected))
    faults.expect(".")
    assert not faults.unexpected


def test_bad_contrast_is_noticed(page):
    """axe-core finds a text that is hard to read, and a picture without a text."""
    page.set_content(
        '<main><h1 style="color: #ddd">Title</h1><img src="data:image/gif;base64,"></main>'
    )
    found = " ".join(violations(page))
    for rule in ("color-contrast", "image-alt", "html-has-lang"):
        assert rule in found
