"""The commands of docs/publishing.md, each as it is written, and their prices at a client."""

import os
import re
import subprocess
from pathlib import Path
from typing import get_args

from server.gateway import publisher
from server.intake import answer, first_answers, held, new_symbols, objects, once, sources
from server.intake.answer import Code
from tests.feeds.test_publishing import quote
from tests.processes import SECRET, ServerProcess

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "publishing.md").read_text()
README = (ROOT / "README.md").read_text()

_PROMPT = re.compile(r"^\$ (.+)$", re.MULTILINE)

_LIMIT = re.compile(r"([\d,]+)( KiB| MiB)?[^|\d]*\(`([A-Z_]+)`\) \|")

MODULES = (publisher, answer, first_answers, held, new_symbols, objects, once, sources)
UNITS = {"": 1, " KiB": 1024, " MiB": 1024 * 1024}

NOT_RUN = re.compile(
    r"(?:REDIS_URL=\S+ )?FEED=\S+ scripts/serve|scripts/quotestream watch .*|redis-cli .*"
)
"""Commands that serve or draw until their user ends them, and those of Redis."""


def commands(text: str) -> list[str]:
    """Return what a reader types to publish."""
    return [each for each in _PROMPT.findall(text) if not NOT_RUN.fullmatch(each)]


def type_in(server: ServerProcess, folder: Path, lines: list[str]) -> str:
    """Run commands in one shell, as in one terminal. Return what they print."""
    host, port = server.http_address
    script = "\n".join(lines).replace("127.0.0.1:8081", f"{host}:{port}")
    environment = os.environ | {
        "JWT_SECRET": SECRET,
        "WS_PORT": server.quotes_url.rpartition(":")[2].partition("/")[0],
        "XDG_STATE_HOME": str(folder),
    }
    done = subprocess.run(
        ["bash", "-ec", script],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_readers_prices_are_on_the_screen(tmp_path: Path) -> None:
    """curl, `quotestream publish` and Python: each trade counts, the last one has the price."""
    lines = commands(DOCUMENT)
    assert len(lines) == 4
    with ServerProcess(tmp_path, FEED="push") as server:
        shown = type_in(server, tmp_path, lines)
        _, found = quote(server, "AAPL")
    assert (found["current_price"], found["volume"]) == (176.2, 250)
    assert "1 accepted, 0 duplicate, 0 late, 0 held, 0 rejected" in DOCUMENT
    answer = re.search(r'^{"accepted".*$', DOCUMENT, re.MULTILINE)
    assert answer
    assert answer[0] in shown


def test_readmes_price_is_published(tmp_path: Path) -> None:
    """The two commands in README suffice."""
    section = README.partition("## Publish your own prices")[2].partition("\n## ")[0]
    [line] = commands(section)
    with ServerProcess(tmp_path, FEED="push") as server:
        type_in(server, tmp_path, [line])
        assert quote(server, "AAPL")[1]["current_price"] == 175.92


def test_documented_limits_are_the_servers() -> None:
    """Each value of the table is that of the constant beside it."""
    rows = _LIMIT.findall(DOCUMENT)
    assert len(rows) == 11
    for number, unit, name in rows:
        values = {vars(module)[name] for module in MODULES if name in vars(module)}
        assert values == {int(number.replace(",", "")) * UNITS[unit]}, name


def test_every_code_of_a_rejected_object_is_explained() -> None:
    """The document says for each code what to do."""
    assert all(f"`{code}`" in DOCUMENT for code in get_args(Code))
