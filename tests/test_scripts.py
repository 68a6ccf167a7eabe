"""The scripts of developers keep their promises."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import TIMEOUT

ROOT = Path(__file__).parents[1]

REAP = [sys.executable, str(ROOT / "scripts" / "reap.py")]

LEAVES_A_SERVER = """
import subprocess, sys, time

for program in ("sleep 600", "trap '' TERM INT; sleep 600; sleep 600"):
    server = subprocess.Popen(["sh", "-c", program], start_new_session=True, stdout=subprocess.DEVNULL)
    print(server.pid, flush=True)
time.sleep(float(sys.argv[1]))
sys.exit(7)
"""
"""Starts two servers in sessions of their own, tells their process ids, and ends."""


def is_there(pid: str) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("number", [None, signal.SIGINT, signal.SIGTERM])
def test_no_process_is_left_behind(number):
    """Whether the command ends by itself or is interrupted; its exit code is passed on."""
    command = [*REAP, sys.executable, "-c", LEAVES_A_SERVER, "600" if number else "0"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        text=True,
    ) as process:
        assert process.stdout is not None
        servers = [process.stdout.readline().strip() for _ in range(2)]
        if number:
            assert all(map(is_there, servers))
            os.killpg(process.pid, number) if number == signal.SIGINT else os.kill(
                process.pid, number
            )
        code = process.wait(TIMEOUT)
        assert code == (128 + signal.SIGINT if number else 7)
        assert not any(map(is_there, servers))


def test_help_tells_what_the_tests_do():
    """Nothing is installed and no test is run for it."""
    done = subprocess.run(
        [ROOT / "scripts" / "test", "--help"], capture_output=True, text=True, check=True
    )
    for word in (
        "quick",
        "minutes",
        "Postgres",
        "Redis",
        "HAProxy",
        "nginx",
        "apt",
        "chromium",
        "nodejs",
        "npm",
    ):
        assert word in done.stdout


def test_files_that_passed_are_not_checked_again(tmp_path):
    """flake8_async looks at what it has not seen, and finds what is wrong there."""
    git = ["git", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / ".venv").mkdir()
    (tmp_path / "good.py").write_text("import trio\n")
    (tmp_path / "other.py").write_text("x = 1\n")
    check = [sys.executable, str(ROOT / "scripts" / "check_async.py")]

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(check, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert "checked 1 of 1 files" in run().stdout
    assert "checked 0 of 1 files" in run().stdout
    bad = "import trio\n\n\nasync def wait():\n    while True:\n        await trio.sleep(1)\n"
    (tmp_path / "good.py").write_text(bad)
    for _ in range(2):
        done = run()
        assert done.returncode == 1
        assert "ASYNC110" in done.stdout
