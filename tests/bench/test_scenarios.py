"""Each scenario in small: it measures, prints its figures, and says so when it cannot."""

import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does."""
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(
        command, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False
    )


def test_hotpath_encodes_once():
    """Whatever the number of subscribers, an update is encoded once."""
    run = bench("hotpath", "--subscribers", "50", "--updates", "32")
    assert run.returncode == 0, run.stderr
    rows = [line.split() for line in run.stdout.splitlines()[-2:]]
    assert [(row[0], row[2]) for row in rows] == [("1", "1.00"), ("16", "1.00")]


def test_fanout_misses_nothing():
    """Every connection gets every update; the server's cost is told."""
    run = bench("fanout", "--connections", "20", "--duration", "2")
    assert run.returncode == 0, run.stdout + run.stderr
    figures = dict(line.split(maxsplit=1) for line in run.stdout.splitlines() if line)
    assert int(figures["delivered"].split()[0]) >= 20
    assert figures["missed"].startswith("0 ")
    assert "% of a core" in figures["server"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["fanout", "--url", "ws://127.0.0.1:1/ws/quotes", "--token", "x"],
        ["fanout", "--url", "ws://127.0.0.1:1/ws/quotes"],
        ["fanout", "--interval", "never"],
        ["fanout", "--connections", "0"],
        ["fly"],
    ],
)
def test_what_cannot_be_measured_is_one_clear_line(arguments):
    """No server, no token, a bad value: exit code 2, no traceback."""
    run = bench(*arguments)
    assert run.returncode == 2
    assert "Traceback" not in run.stderr
    assert run.stderr.splitlines()[-1]
