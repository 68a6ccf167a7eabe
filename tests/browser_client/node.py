"""Finds Node, which runs `quotes.js` in the tests."""

import shutil
from pathlib import Path

import pytest

RUNNERS = Path(__file__).parent

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="there is no node")


def node() -> str:
    """Return Node's path."""
    path = shutil.which("node")
    assert path is not None
    return path
