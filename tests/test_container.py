"""The container image: what goes into it, as whom it runs, and how it is watched.

No image is built, as that needs the network.
"""

import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from fnmatch import fnmatch
from pathlib import Path

import pytest

from server.config.settings import Settings
from tests.processes import ServerProcess

ROOT = Path(__file__).parents[1]

LARGEST_CONTEXT = 5_000_000
"""Bytes that the engine is sent: the shipped instruments are most of them."""


def instructions() -> list[tuple[int, str, str]]:
    """Return the Containerfile's instructions: the stage, the name and the rest."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Containerfile").read_text(), flags=re.MULTILINE)
    found, stage = [], 0
    for line in text.replace("\\\n", "").splitlines():
        if line:
            name, _, rest = line.partition(" ")
            stage += name == "FROM"
            found.append((stage, name, rest.strip()))
    return found


def final() -> dict[str, list[str]]:
    """Return the last stage's instructions by name."""
    found = instructions()
    by_name: dict[str, list[str]] = defaultdict(list)
    for stage, name, rest in found:
        if stage == found[-1][0]:
            by_name[name].append(rest)
    return by_name


def context() -> list[Path]:
    """Return the files that .dockerignore lets through. Its last pattern that matches counts."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    assert patterns[0] == "*"
    kept = [ROOT / each[1:] for each in patterns if each.startswith("!")]
    dropped = [each.removeprefix("**/") for each in patterns[1:] if not each.startswith("!")]
    files = [path for each in kept for path in ([each] if each.is_file() else each.rglob("*"))]
    return [
        path
        for path in files
        if path.is_file()
        and not any(
            fnmatch(part, each) for part in path.relative_to(ROOT).parts for each in dropped
        )
    ]


def test_context_has_what_is_copied_and_nothing_else():
    """It is small, and neither secrets nor a developer's files are in it."""
    files = {str(path.relative_to(ROOT)) for path in context()}
    copied = {
        source
        for _, name, rest in instructions()
        if name == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    }
    for each in copied:
        assert any(file == each or file.startswith(f"{each}/") for file in files), each
    assert {file.split("/")[0] for file in files} == copied
    assert sum(path.stat().st_size for path in context()) < LARGEST_CONTEXT
    assert not [file for file in files if file.endswith((".pyc", ".env"))]


def test_image_has_no_tools_and_no_rights():
    """The last stage takes the packages from the first, without pip, and runs as a number."""
    stage = final()
    [removed] = [
        rest for number, name, rest in instructions() if number == 1 and "uninstall" in rest
    ]
    assert {"pip", "setuptools", "hatchling"} <= set(removed.split())
    assert not any(re.search(r"\bpip\b|venv\b(?!/)|-dev\b|gcc", rest) for rest in stage["RUN"])
    [user] = stage["USER"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    [volume] = stage["VOLUME"]
    variables = dict(each.split("=") for rest in stage["ENV"] for each in rest.split())
    assert variables["SQLITE_PATH"].startswith(f"{volume}/")
    assert {name.lower() for name in variables} <= set(Settings.__struct_fields__)
    assert "JWT_SECRET" not in variables


@pytest.mark.parametrize("variables", [{}, {"HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": ""}])
def test_health_check_tells_whether_the_server_is_up(tmp_path, variables):
    """Also in a container that has a proxy for other machines."""
    [check] = final()["HEALTHCHECK"]
    command = json.loads(check.partition(" CMD ")[2])
    assert command[0] == "/venv/bin/python"

    def code(server: ServerProcess) -> int:
        environ = {**os.environ, "HTTP_PORT": str(server.http_address[1]), **variables}
        done = subprocess.run(
            [sys.executable, *command[1:]],
            env=environ,
            capture_output=True,
            timeout=60,
            check=False,
        )
        return done.returncode

    with ServerProcess(tmp_path) as server:
        assert code(server) == 0
    assert code(server) != 0
