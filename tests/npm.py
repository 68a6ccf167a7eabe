"""Files of npm's packages that tests need and the project does not have."""

import subprocess
import tarfile
from pathlib import Path

from tests.programs import program, skip

TIMEOUT = 60
"""Seconds for npm's registry."""


def packed_file(package: str, file: str, folder: Path) -> bytes:
    """Return a file of a package such as `name@1.2.3`. Without npm's registry, skip the test
    (see `programs.skip`).

    `folder` is an empty one, for the package.
    """
    npm = program("npm", package="npm")
    done = subprocess.run(
        [npm, "pack", package], cwd=folder, capture_output=True, timeout=TIMEOUT, check=False
    )
    found = [*folder.glob("*.tgz")]
    if done.returncode or not found:
        skip(f"npm's registry is not reachable, so {package} cannot be fetched")
    with tarfile.open(found[0]) as archive:
        member = archive.extractfile(file)
        assert member is not None
        return member.read()
