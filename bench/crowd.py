"""The clients of one server in a process of their own, as a process may open only so many sockets.

They read all the time, whatever the process that commands them does.
"""

import signal
from collections import Counter
from multiprocessing import get_context
from multiprocessing.connection import Connection
from time import monotonic
from types import TracebackType
from typing import NamedTuple, Self

from bench.load import Choice, connect, open_generator, own_cpu
from bench.screen import console
from bench.target import Target, TargetError

SAMPLE = 10
"""One connection in so many is asked when it got an update, and whether it missed one."""

STEP = 0.02
"""Seconds for which the clients read before the next command is looked for."""


class Counts(NamedTuple):
    """What a crowd has seen since it was reset. `cpu`: its process's seconds; `failed`: since the
    beginning; `histogram`: latencies in microseconds, encoded.
    """

    frames: int
    missed: int
    cpu: float
    failed: Counter[str]
    histogram: bytes


class Crowd:
    """`open` and `reset` only ask for it, so that several crowds do it at once; then `wait`."""

    def __init__(self, target: Target, choose: Choice) -> None:
        context = get_context("fork")  # the target, with its process, is not to be copied
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_run, args=(theirs, target, choose), daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.join()

    def open(self, count: int) -> None:
        """Open so many connections more."""
        self._pipe.send(count)

    def reset(self) -> None:
        """Tell what was seen, and begin to count anew."""
        self._pipe.send(0)

    def wait(self) -> Counts | None:
        """Wait until that is done; what was seen, if it was to be told. Errors: TargetError."""
        try:
            answer: Counts | str | None = self._pipe.recv()
        except EOFError:
            answer = "the clients' process has ended"
        if isinstance(answer, str):
            raise TargetError(answer)
        return answer


def _run(pipe: Connection, target: Target, choose: Choice) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who commands this ends it
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
