"""What the documents say is there."""

import re
from pathlib import Path

TESTS = Path(__file__).parent
DOCS = TESTS.parent / "docs"

_NAMED = re.compile(r"`([a-z]+/test_\w+\.py)?(?:::(\w+))?`")


def test_every_test_that_shows_security_exists():
    """docs/security.md names files and functions below tests/; a `::name` is in the file before it."""
    named = []
    for line in (DOCS / "security.md").read_text().splitlines():
        file = ""
        for match in _NAMED.finditer(line):
            file = match[1] or file
            named.append((file, match[2]))
    assert len(named) > 50
    for file, function in named:
        text = (TESTS / file).read_text()
        assert function is None or f"def {function}(" in text, f"{file}::{function}"
