"""Shows each failure at once and what tests measure, and marks the tests that are quick."""

import sys
from functools import cache
from types import ModuleType

import pytest
from _pytest.terminal import TerminalReporter

STARTERS = {
    "subprocess",
    "bench.services",
    "playwright.sync_api",
    "tests.cli.command",
    "tests.forks",
    "tests.processes",
}
"""Modules whose names a test or a fixture uses if it starts processes."""

LONGEST = "tests/test_trading_day.py"
"""Would keep one processor busy while the others have nothing left to do."""

SERVICES = {"postgres", "redis"}
"""Parameters for which a fixture starts a process."""


class Measured:
    """Prints at the end what tests have measured and told by the fixture `record_property`."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the values of a test, also of one in another process."""
        if report.when == "call":
            name = report.nodeid.rpartition("::")[2]
            self._lines += [f"{name}: {key}: {value}" for key, value in report.user_properties]

    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        """Print one line for each value."""
        if self._lines:
            terminalreporter.write_sep("=", "measured")
            for line in self._lines:
                terminalreporter.write_line(line)


class FailuresAtOnce:
    """Prints a failure when it happens, and no second time at the end."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Print the traceback and what the test has printed."""
        self._print(report, report.when)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Print why a module could not be imported."""
        self._print(report, "collection")

    def _print(self, report: pytest.TestReport | pytest.CollectReport, phase: str | None) -> None:
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if report.failed and isinstance(terminal, TerminalReporter):
            terminal.ensure_newline()
            terminal.write_sep("=", f"{phase} of {report.nodeid} failed", red=True)
            terminal.write_line(report.longreprtext)
            for title, content in report.sections:
                terminal.write_sep("-", title)
                terminal.write_line(content.rstrip())

    def pytest_sessionfinish(self) -> None:
        """Leave the tracebacks out of the summary, which names the tests that failed."""
        self._config.option.tbstyle = "no"


def pytest_configure(config: pytest.Config) -> None:
    """Describe the marker; print failures where the results of all processes come together."""
    config.addinivalue_line("markers", "quick: starts no process (set by tests/reporting.py)")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(FailuresAtOnce(config))
        config.pluginmanager.register(Measured())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as `quick` the tests that start no process; put the longest first."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))
    for item in items:
        if isinstance(item, pytest.Function) and not _starts_processes(item):
            item.add_marker("quick")


def _starts_processes(item: pytest.Function) -> bool:
    """Tell from the names that the modules of the test and of its fixtures use."""
    modules = {item.module.__name__}
    for fixtures in item._fixtureinfo.name2fixturedefs.values():
        modules.update(fixture.func.__module__ for fixture in fixtures)
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return any(map(_uses_starters, modules)) or not SERVICES.isdisjoint(map(str, parameters))


@cache
def _uses_starters(module: str) -> bool:
    return not STARTERS.isdisjoint(map(_origin, vars(sys.modules[module]).values()))


def _origin(value: object) -> str:
    """Return the name of the module that a value comes from."""
    if isinstance(value, ModuleType):
        return value.__name__
    return str(getattr(value, "__module__", ""))
