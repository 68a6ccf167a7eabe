"""Fails a test that takes longer than `time_limit` of pytest's settings, so that the others run."""

import signal
from collections.abc import Generator
from types import FrameType

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Describe the setting."""
    parser.addini("time_limit", "seconds for the set-up of a test, its call and its teardown, each")


def pytest_configure(config: pytest.Config) -> None:
    """Describe the marker."""
    config.addinivalue_line("markers", "time_limit(seconds): in place of the setting's seconds")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    """Limit the fixtures of a test."""
    yield from _limited(item)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Limit a test."""
    yield from _limited(item)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """Limit the end of a test's fixtures."""
    yield from _limited(item)


def _limited(item: pytest.Item) -> Generator[None]:
    marker = item.get_closest_marker("time_limit")
    limit = float(marker.args[0] if marker else item.config.getini("time_limit"))
    hangs = False

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal hangs
        hangs = True
        # Any other exception out of here would break trio's loop: later tests could not run theirs.
        signal.raise_signal(signal.SIGINT)

    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        yield
    except (Exception, BaseExceptionGroup, KeyboardInterrupt) as error:
        if hangs:
            raise pytest.fail.Exception(f"it hangs: it took {limit:g} s") from error
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
