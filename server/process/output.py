"""Standard output and error of a server: threads write them, so that writing never blocks the server.

If the event loop wrote its output itself, a full disk or a closed pipe could end it. A pipe that nobody
reads or a stopped terminal could freeze it. So each descriptor has a thread, which writes the lines of
a bounded queue. It drops and counts lines that cannot be written.

*Rejected:* O_NONBLOCK. It belongs to the open file, which other processes share, such as the operator's
shell.
"""

import atexit
import io
import os
import select
import sys
import threading
from queue import SimpleQueue
from typing import TextIO, cast

import structlog

MAX_WAITING = 1024 * 1024
"""Bytes that wait for a descriptor: some 4,000 log lines. Further lines are dropped."""

DRAIN_TIMEOUT = 0.2
"""Seconds that the process waits for each descriptor at its end."""

STDIN, STDOUT, STDERR = 0, 1, 2

log = structlog.get_logger()


class Output(io.TextIOBase):
    """A text file that never blocks and never fails. Its thread alone writes to `descriptor`.

    `lost` counts the dropped lines, for which there was no room or whose descriptor failed.
    """

    def __init__(self, descriptor: int) -> None:
        self.lost = 0
        self._descriptor = descriptor
        self._begun = ""
        self._waiting: SimpleQueue[bytes | threading.Event] = SimpleQueue()
        self._size = 0
        # Reentrant: a finalizer that writes a warning may run while this thread holds it.
        self._lock = threading.RLock()
        self._torn = False
        self._failed = False
        self._told = 0
        name = f"output {descriptor}"
        threading.Thread(target=self._write_waiting, name=name, daemon=True).start()

    def write(self, text: str) -> int:
        """Queue whole lines. An unfinished line waits for its end."""
        with self._lock:
            lines, end, self._begun = (self._begun + text).rpartition("\n")
            if end:
                self._add((lines + end).encode("utf-8", "backslashreplace"))
        return len(text)

    def writable(self) -> bool:
        """Return True: text may be written."""
        return True

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Return whether the descriptor is a terminal."""
        return os.isatty(self._descriptor)

    def drain(self) -> None:
        """Wait until everything given so far is written, for DRAIN_TIMEOUT at most."""
        if self._begun:
            self.write("\n")
        reached = threading.Event()
        self._waiting.put(reached)
        reached.wait(DRAIN_TIMEOUT)

    def _add(self, lines: bytes) -> None:
        if self._size + len(lines) > MAX_WAITING:
            self.lost += 1
        else:
            self._size += len(lines)
            self._waiting.put(lines)

    def _write_waiting(self) -> None:
        while True:
            lines = self._waiting.get()
            if isinstance(lines, threading.Event):
                lines.set()
                continue
            try:
                self._write_out(lines)
            except OSError as error:
                self._on_failure(error)
            else:
                self._on_success()
            with self._lock:
                self._size -= len(lines)

    def _write_out(self, lines: bytes) -> None:
        rest = memoryview(b"\n" + lines if self._torn else lines)
        while rest:
            try:
                written = os.write(self._descriptor, rest)
            # Another process has made the open file non-blocking.
            except BlockingIOError:
                select.select([], [self._descriptor], [])
                continue
            rest = rest[written:]
            self._torn = bool(rest)

    def _on_failure(self, error: OSError) -> None:
        with self._lock:
            self.lost += 1
        if not self._failed and self._descriptor != STDERR:
            log.warning("cannot write to standard output", problem=error.strerror)
        self._failed = True

    def _on_success(self) -> None:
        self._failed = False
        lost = self.lost
        # In a full queue this line would be lost, too.
        if lost > self._told and self._size < MAX_WAITING / 2:
            log.warning("lines of output were lost", lines=lost - self._told)
            self._told = lost


_taken_over: list[Output] = []


def take_over_output() -> None:
    """Let threads write this process's standard output and error from now on.

    Descriptors that the parent process has closed lead to /dev/null. Otherwise the next socket would
    get such a number, and with it the output.
    """
    for descriptor in (STDIN, STDOUT, STDERR):
        try:
            os.fstat(descriptor)
        except OSError:
            # It gets the lowest free number.
            os.open(os.devnull, os.O_RDWR)
    _taken_over[:] = Output(STDOUT), Output(STDERR)
    sys.stdout, sys.stderr = (cast("TextIO", each) for each in _taken_over)
    atexit.register(drain_output)


def drain_output() -> None:
    """Give the last lines a moment to be written. Never fails."""
    for each in _taken_over:
        each.drain()


def lost_lines() -> int:
    """Return how many lines of output were dropped since the start."""
    return sum(each.lost for each in _taken_over)
