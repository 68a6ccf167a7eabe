"""Handles signals. A process that is told to stop ends in time, even if it hangs.

Three ways lead to the end. Each needs less than the one before it:

1. The event loop is told and stops cleanly.
2. A thread waits for the second signal, or for the clean stop to take too long, and ends the process.
   It needs neither the event loop nor the main thread.
3. The kernel's alarm ends the process (SIGALRM), even if no thread runs Python any more.
"""

import math
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from time import monotonic
from types import FrameType
from typing import NoReturn

import structlog
import trio

from server.process.output import drain_output

STOPS = (signal.SIGINT, signal.SIGTERM)

ORDERS = (signal.SIGHUP, signal.SIGUSR1)
"""Signals after which the process goes on. During the start, `__main__` lets the kernel keep them."""

IGNORED = (signal.SIGUSR2, signal.SIGTTOU)
"""Signals without a meaning here. They would end the process, or stop it when it logs to a terminal.

SIGQUIT keeps its default: it ends the process at once, with a core dump if those are enabled.
"""

LAST_WORDS = 0.9
"""Seconds from the decision for a hard exit until the kernel's alarm."""

STOP_TIMEOUT = 9.0
"""Seconds from the first signal to a hard exit, with the default DRAIN_DELAY; 10 are promised."""

INCLUDED_DELAY = 2.0
"""Seconds of DRAIN_DELAY that STOP_TIMEOUT has room for. A longer delay moves the hard exit."""

log = structlog.get_logger()


def hard_exit_after(drain_delay: float, timeout: float = STOP_TIMEOUT) -> float:
    """Return the seconds from the first signal to the hard exit; `timeout` is for the default delay."""
    return timeout + max(0.0, drain_delay - INCLUDED_DELAY)


def exit_now(reason: str, code: int) -> NoReturn:
    """End the process. Log the reason first if that is possible."""
    try:
        signal.setitimer(signal.ITIMER_REAL, LAST_WORDS)
        log.warning("exit at once", reason=reason)
        drain_output()
    finally:
        os._exit(code)


def end_start_at_sigterm() -> None:
    """Let SIGTERM end a start. A container's first process has no default action for it."""
    signal.signal(signal.SIGTERM, _end_start)


def _end_start(number: int, _: FrameType | None) -> None:
    exit_now("stopped before it served", 128 + number)


class Signals:
    """Takes the process's signals for the rest of its life. The main thread makes it, within trio.

    `received` gives their numbers to the event loop.

    Arguments:
        timeout: seconds from the first SIGINT or SIGTERM to the hard exit.
        last_act: called before the hard exit, in a thread, with the reason. It may sleep, but must not
            wait for anything else.
    """

    def __init__(self, timeout: float, last_act: Callable[[str], None] = lambda _: None) -> None:
        self._timeout = timeout
        self._last_act = last_act
        self._stops: SimpleQueue[int] = SimpleQueue()
        self._begun_at: float | None = None
        self._token = trio.lowlevel.current_trio_token()
        self._send, self.received = trio.open_memory_channel[int](math.inf)
        threading.Thread(target=self._enforce, name="hard exit", daemon=True).start()
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        for number in IGNORED:
            signal.signal(number, signal.SIG_IGN)
        for number in (*STOPS, *ORDERS):
            signal.signal(number, self._on_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {*STOPS, *ORDERS, signal.SIGALRM})

    @property
    def time_left(self) -> float:
        """Seconds until the hard exit; infinite if the process was not told to stop."""
        return math.inf if self._begun_at is None else self._begun_at + self._timeout - monotonic()

    def stop(self) -> None:
        """Stop as at a first SIGTERM. Harmless if the stop has begun."""
        if self._begun_at is None:
            self._on_signal(signal.SIGTERM, None)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        # Between any two instructions of the main thread: nothing here may take a lock.
        if number in STOPS:
            if self._begun_at is None:
                self._begun_at = monotonic()
                signal.setitimer(signal.ITIMER_REAL, self._timeout + LAST_WORDS)
            self._stops.put(number)
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._send.send_nowait, number, idempotent=True)

    def _enforce(self) -> None:
        self._stops.get()
        try:
            number = self._stops.get(timeout=self._timeout)
            reason, code = "second signal", 128 + number
        except Empty:
            reason, code = "clean stop took too long", 1
        try:
            self._last_act(reason)
        finally:
            exit_now(reason, code)
