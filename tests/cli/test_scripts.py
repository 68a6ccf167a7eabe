"""The scripts of a clone, from wherever they are called."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from server import __version__

ROOT = Path(__file__).parents[2]


def call(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(each) for each in arguments],
        cwd=variables.pop("cwd", "/"),
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("script", ["serve", "quotestream", "bench"])
def test_through_a_link_and_from_another_folder(tmp_path, script):
    """Each finds its clone."""
    (tmp_path / "link").symlink_to(ROOT / "scripts" / script)
    done = call(tmp_path / "link", "--help", cwd=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
    if script == "quotestream":
        assert call(tmp_path / "link", "--version").stdout == f"quotestream {__version__}\n"


def test_interpreter_that_does_not_fit_is_named(tmp_path):
    """The message says how to choose one, and how to get one."""
    for name in ("scripts", "requirements.lock", "pyproject.toml"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    done = call(tmp_path / "scripts" / "setup", PYTHON="/bin/false")
    assert done.returncode == 2
    assert "/bin/false is not one" in done.stderr
    assert "PYTHON=/path/to/python" in done.stderr
    assert "apt-get install" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_benchmark_without_its_packages_says_what_installs_them():
    """After `scripts/serve` only what serving needs is there."""
    code = "import sys, runpy; sys.modules['hdrh'] = None; runpy.run_module('bench')"
    done = call(sys.executable, "-c", code, PYTHONPATH=str(ROOT))
    assert done.returncode == 1
    assert done.stderr == (
        "bench: packages are missing that serving does not need: scripts/bench installs them\n"
    )
