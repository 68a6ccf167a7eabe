"""The run of the tests tells a test that hangs, and a module that cannot be imported."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

HANGING = """
import signal
import time

import pytest
import trio


@pytest.fixture
def stuck():
    time.sleep(600)


async def test_waits_in_trio():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)


async def test_trio_runs_afterwards():
    await trio.sleep(0)


def test_waits_in_python():
    time.sleep(600)


def test_waits_in_a_fixture(stuck):
    pass


def test_ignores_the_signal():
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    time.sleep(600)


@pytest.mark.time_limit(60)
def test_may_take_longer():
    time.sleep(2.5)
"""


def run(module: Path, *options: str) -> str:
    """Run the tests of a module with the plug-ins of this project. Return the output."""
    plugins = ["-p", "tests.reporting", "-p", "tests.time_limit", "-o", "trio_mode=true"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugins, *options, "-c", "/dev/null", str(module)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode, done.stdout + done.stderr
    return done.stdout


def test_one_that_hangs_fails_by_its_name(tmp_path):
    """The others run, also those of trio and those after one that has ended its process."""
    module = tmp_path / "test_hanging.py"
    module.write_text(HANGING)
    limits = ["time_limit=2", "faulthandler_timeout=6", "faulthandler_exit_on_timeout=true"]
    options = [word for limit in limits for word in ("-o", limit)]
    output = run(module, "-n", "1", *options)
    for name in ("test_waits_in_trio", "test_waits_in_python"):
        assert f"call of {module.name}::{name} failed" in output
    assert f"setup of {module.name}::test_waits_in_a_fixture failed" in output
    assert f"crashed while running '{module.name}::test_ignores_the_signal'" in output
    assert "3 failed, 2 passed, 1 error" in output
    assert output.count("it hangs") >= 3


def test_module_that_cannot_be_imported_is_told(tmp_path):
    module = tmp_path / "test_broken.py"
    module.write_text("import quotestream_without_this\n")
    assert "No module named 'quotestream_without_this'" in run(module, "-n", "0")
