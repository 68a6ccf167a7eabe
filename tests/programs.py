"""Programs that some tests need, and that a developer may not have."""

import os
import shutil
from typing import NoReturn

import pytest

UNSET = {"", "0", "false"}
"""Values of the variable CI that do not stand for continuous integration."""


def program(*names: str, package: str) -> str:
    """Return the path of the first of these programs that is there. Without one, skip the test.

    `package` is Debian's package. In continuous integration, the test fails instead.
    """
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        skip(f"{names[0]} is not installed. As root: apt-get install {package}")
    return found


def skip(problem: str) -> NoReturn:
    """Skip the test. In continuous integration, fail it instead."""
    if os.environ.get("CI", "").lower() in UNSET:
        pytest.skip(problem)
    pytest.fail(f"{problem}. Continuous integration may not skip tests.", pytrace=False)
