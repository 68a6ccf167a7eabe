"""Clients in a process of their own that stream during an attack, so that nothing else slows them.

Each sends a ping every PERIOD, also if the last one was not answered. A server that stands still
for a second is then late for fifty pings, not for one.
"""

import math
import threading
import time
from collections.abc import Sequence
from functools import reduce
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple, Self

from tests.gateway.wire import Client
from tests.processes import TIMEOUT, ServerProcess

PERIOD = 0.02
"""Seconds between two pings of one client; WS_COMMAND_RATE must be above 50."""

SYMBOLS = ("AAPL,MSFT,VOO", "AAPL,IBM")
"""The symbols of each client."""

ANSWER_TIME = 15.0
"""Seconds in which a witness must report, longer than it waits for pings itself."""


class Report(NamedTuple):
    """Since the last report: round trips in seconds, the longest time between two prices of a
    client, and the clients' problems.
    """

    round_trips: Sequence[float]
    silence: float
    problems: Sequence[str]

    @property
    def p99(self) -> float:
        """The 99th percentile of the round trips; infinite without any."""
        trips = sorted(self.round_trips)
        return trips[int(len(trips) * 0.99)] if trips else math.inf

    def __add__(self, later: object) -> "Report":
        assert isinstance(later, Report)
        return Report(
            [*self.round_trips, *later.round_trips],
            max(self.silence, later.silence),
            [*self.problems, *later.problems],
        )


class Witness:
    """The process, seen from the test; it starts on entering."""

    def __init__(self, quotes_url: str) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_stream, args=(quotes_url, theirs), daemon=True)
        self._theirs = theirs

    def __enter__(self) -> Self:
        self._process.start()
        self._theirs.close()
        self.report()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()
        self._process.close()
        self._pipe.close()

    def report(self, pings: int = 0) -> Report:
        """Return what happened since the last report, once at least `pings` more were answered."""
        self._pipe.send(pings)
        assert self._pipe.poll(ANSWER_TIME + 2 * pings * PERIOD), "the witness does not answer"
        report: Report = self._pipe.recv()
        return report


class _Stream:
    """One client. The process's main thread sends its pings; a thread of its own reads."""

    def __init__(self, server: ServerProcess, symbols: str) -> None:
        self.client = Client(server, symbols)
        self.problem = ""
        self.waiting: dict[int, float] = {}
        self.round_trips: list[float] = []
        self._silence = 0.0
        self._heard = time.perf_counter()
        self._number = 0
        threading.Thread(target=self._read, daemon=True).start()

    def ping(self, due: float) -> None:
        """Send one ping, whose time counts from when it was due."""
        if not self.problem:
            self._number += 1
            self.waiting[self._number] = due
            try:
                self.client.send("ping", id=self._number)
            except Exception as error:
                self.problem = self.problem or repr(error)

    def take(self) -> Report:
        """Return what happened since the last call."""
        round_trips, self.round_trips = self.round_trips, []
        silence, self._silence = max(self._silence, time.perf_counter() - self._heard), 0.0
        return Report(round_trips, silence, [self.problem] if self.problem else [])

    def _read(self) -> None:
        try:
            while True:
                message, now = self.client.receive(), time.perf_counter()
                if message["type"] == "pong":
                    self.round_trips.append(now - self.waiting.pop(message["id"]))
                elif message["type"] == "quotes_patch":
                    self._silence = max(self._silence, now - self._heard)
                    self._heard = now
        except Exception as error:
            self.problem = self.problem or repr(error)


def _stream(quotes_url: str, pipe: Connection) -> None:
    server = ServerProcess(Path())  # somebody else started it
    server.quotes_url = quotes_url
    streams = [_Stream(server, symbols) for symbols in SYMBOLS]
    due, wanted = time.perf_counter(), -1
    while True:
        if pipe.poll(max(0.0, due - time.perf_counter())):
            wanted = pipe.recv()
            continue
        for stream in streams:
            stream.ping(due)
        due += PERIOD
        answered = sum(len(stream.round_trips) for stream in streams)
        if 0 <= wanted <= answered or (wanted >= 0 and any(stream.problem for stream in streams)):
            pipe.send(_collect(streams))
            wanted = -1


def _collect(streams: Sequence[_Stream]) -> Report:
    """Wait for the answers to all sent pings, then add the clients' reports up."""
    sent = [set(stream.waiting) for stream in streams]
    deadline = time.perf_counter() + 2 * TIMEOUT
    while any(
        numbers & set(stream.waiting) and not stream.problem
        for stream, numbers in zip(streams, sent, strict=True)
    ):
        if time.perf_counter() > deadline:
            streams[0].problem = "pings are not answered"
            break
        time.sleep(PERIOD / 4)
    return reduce(Report.__add__, [stream.take() for stream in streams])
