"""Files of npm's packages that tests need and the project does not have."""

import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

TIMEOUT = 60
"""Seconds for npm's registry."""


def packed_file(package: str, file: str, folder: Path) -> bytes:
    """Return a file of a package such as `name@1.2.3`. Skip the test without npm or its registry.

    `folder` is an empty one, for the package.
    """
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip(f"npm is not installed, so {package} cannot be fetched")
    done = subprocess.run(
        [npm, "pack", package], cwd=folder, capture_output=True, timeout=TIMEOUT, check=False
    )
    found = [*folder.glob("*.tgz")]
    if done.returncode or not found:
        pytest.skip(f"npm's registry is not reachable, so {package} cannot be fetched")
    with tarfile.open(found[0]) as archive:
        member = archive.extractfile(file)
        assert member is not None
        return member.read()
