"""A test that lacks a program is skipped on a developer's machine, and fails in CI."""

import shutil

import pytest

from tests.programs import program

LACKING = "nothing-of-this-name is not installed. As root: apt-get install nothing"


@pytest.fixture
def lacking():
    """Return a function that asks for a program that no machine has."""
    return lambda: program("nothing-of-this-name", package="nothing")


@pytest.mark.parametrize("value", [None, "", "0", "false", "False"])
def test_test_is_skipped_with_the_reason(monkeypatch, lacking, value):
    """The reason says how to get the program."""
    monkeypatch.delenv("CI", raising=False)
    if value is not None:
        monkeypatch.setenv("CI", value)
    with pytest.raises(pytest.skip.Exception, match=LACKING):
        lacking()


@pytest.mark.parametrize("value", ["true", "1", "yes"])
def test_test_fails_in_continuous_integration(monkeypatch, lacking, value):
    """A run that has skipped tests of the pages would pass unnoticed."""
    monkeypatch.setenv("CI", value)
    with pytest.raises(pytest.fail.Exception, match=LACKING):
        lacking()


def test_first_program_that_is_there_is_used():
    """A program has other names on other machines."""
    assert program("nothing-of-this-name", "sh", package="dash") == shutil.which("sh")
