"""Run a command, and leave no process behind: `reap.py COMMAND...`; the exit code is the command's.

Tests start servers in sessions of their own, which Ctrl-C does not reach. When the command ends, for
whatever reason, every process that comes from it is killed. Linux only (PR_SET_CHILD_SUBREAPER).
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType

PR_SET_CHILD_SUBREAPER = 36
"""Of prctl(2): processes whose parent has ended become children of this one."""

GRACE = 20
"""Seconds that an interrupted command has to stop its servers itself."""


def main(command: list[str]) -> int:
    """Run `command` to its end. A signal gives it GRACE seconds, a second signal ends it at once."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    process = subprocess.Popen(command)
    interrupted = False

    def interrupt(number: int, _: FrameType | None) -> None:
        nonlocal interrupted
        if interrupted:
            kill(process.pid)
        # A terminal sends SIGINT to the command as well.
        elif number != signal.SIGINT:
            process.send_signal(signal.SIGINT)
        interrupted = True
        signal.alarm(GRACE)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, interrupt)
    code = wait_for(process.pid)
    signal.alarm(0)
    kill_descendants()
    return code


def kill(pid: int) -> None:
    """Send SIGKILL to a process that may have ended."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def wait_for(pid: int) -> int:
    """Reap every child until `pid` ends; its exit code, as a shell tells it."""
    while True:
        ended, status = os.wait()
        if ended == pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def kill_descendants() -> None:
    """Kill what is left until nothing is: a process may start another one before it is killed."""
    while left := list(descendants(os.getpid())):
        for pid in left:
            kill(pid)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass


def descendants(ancestor: int) -> Iterator[int]:
    """Find the processes that come from `ancestor`, which is not among them."""
    children = defaultdict(list)
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):
            # After the name, which may hold anything: the state, then the parent (proc_pid_stat(5)).
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            children[int(parent)].append(int(folder.name))
    found = [ancestor]
    while found:
        for pid in children[found.pop()]:
            found.append(pid)
            yield pid


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
