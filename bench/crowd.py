"""The clients of one server in a process of their own, as a process has a limit of sockets.

They read all the time, even while the commanding process is busy.
"""

import signal
from collections import Counter
from multiprocessing import get_context
from multiprocessing.connection import Connection
from time import monotonic
from typing import NamedTuple, Self

from bench.load import Choice, connect, open_generator, own_cpu
from bench.screen import console
from bench.target import Target, TargetError

SAMPLE = 10
"""One connection in SAMPLE records when it got each update, and whether it missed one."""

STEP = 0.02
"""Seconds for which the clients read between two looks for a command."""


class Counts(NamedTuple):
    """Counts of a crowd since its last reset; `failed` counts since the start.

    `cpu`: processor seconds of its process. `histogram`: latencies in microseconds, encoded.
    """

    frames: int
    missed: int
    cpu: float
    failed: Counter[str]
    histogram: bytes


class Crowd:
    """A process with clients. `open` and `reset` only send a command, so that several crowds work at
    once; `wait` waits for the result.
    """

    def __init__(self, target: Target, choose: Choice) -> None:
        # Another start method would have to copy the target with its process.
        context = get_context("fork")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_run, args=(theirs, target, choose), daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()

    def open(self, count: int) -> None:
        """Open `count` more connections."""
        self._pipe.send(count)

    def reset(self) -> None:
        """Send the counts, and reset them."""
        self._pipe.send(0)

    def wait(self) -> Counts | None:
        """Wait for the last command, and return the counts after a `reset`. Errors: TargetError."""
        try:
            answer: Counts | str | None = self._pipe.recv()
        except EOFError:
            answer = "the clients' process has ended"
        if isinstance(answer, str):
            raise TargetError(answer)
        return answer


def _run(pipe: Connection, target: Target, choose: Choice) -> None:
    # The commanding process ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    console.quiet = True
    with open_generator(target) as generator:
        used = own_cpu()
        while True:
            generator.run_until(monotonic() + STEP)
            if not pipe.poll():
                continue
            try:
                if count := pipe.recv():
                    connect(generator, target, count, choose, sample=SAMPLE)
                    pipe.send(None)
                else:
                    histogram = generator.latencies.histogram().encode()
                    cpu = own_cpu() - used
                    pipe.send(
                        Counts(generator.frames, generator.missed, cpu, generator.failed, histogram)
                    )
                    generator.reset()
                    used = own_cpu()
            except TargetError as error:
                pipe.send(str(error))
