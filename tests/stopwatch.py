"""Time limits that hold on a busy machine: waiting for a processor does not count."""

import time
from pathlib import Path
from typing import Protocol

LOOK_INTERVAL = 0.01
"""Seconds between two looks whether a process has ended."""

STARVED = 0.25
"""The share of its time that a process waits for a processor only if other programs take them."""


class Ending(Protocol):
    """A process that ends."""

    def poll(self) -> int | None:
        """Return its exit code, None while it runs."""


class Stopwatch:
    """Measures seconds, less those in which a process was ready but another one had its processor.

    `pids` are the measured processes, of which the main threads count. All threads of the test's own
    count, as only one of them can run. On an idle machine the difference is some milliseconds, so that
    a limit stays what it is. A process counts as long as it lives, so look at the watch while it ends
    (`wait_for_end`).
    """

    def __init__(self, *pids: int) -> None:
        self._waits = dict.fromkeys((Path("/proc", str(pid)) for pid in pids), 0.0)
        self._start = time.monotonic()
        self._waited = self._waiting()

    @property
    def seconds(self) -> float:
        """The time since the start."""
        return time.monotonic() - self._start - self.waited

    @property
    def waited(self) -> float:
        """The seconds that the processes waited for a processor since the start."""
        return self._waiting() - self._waited

    @property
    def is_starved(self) -> bool:
        """Whether the machine is too busy for a figure that is not in seconds, or that is a share."""
        return self.waited > STARVED * (time.monotonic() - self._start)

    def wait_for_end(self, process: Ending, timeout: float) -> int:
        """Wait until a measured process has ended, and return its exit code.

        Errors: AssertionError after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while (code := process.poll()) is None:
            assert time.monotonic() < deadline, "it goes on"
            self._waiting()
            time.sleep(LOOK_INTERVAL)
        return code

    def _waiting(self) -> float:
        for task in {*self._waits, *Path("/proc/self/task").iterdir()}:
            self._waits[task] = max(self._waits.get(task, 0.0), _waited_for_processor(task))
        return sum(self._waits.values())


def machine_is_busy() -> bool:
    """Find out, in a tenth of a second's work, whether other programs take the processors."""
    watch, start = Stopwatch(), time.thread_time()
    while time.thread_time() - start < 0.1:
        pass
    return watch.is_starved


def _waited_for_processor(task: Path) -> float:
    """Return the seconds that a thread, or the main one of a process, waited (proc_pid_schedstat, the
    second number).
    """
    try:
        _, nanoseconds, _ = (task / "schedstat").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        # The process has ended, or the kernel does not count.
        return 0.0
    return int(nanoseconds) / 1e9
