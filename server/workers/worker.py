"""A worker's end of the control channel. It reports once a second and ends with its supervisor."""

import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
import trio

from server.workers.control import (
    Answer,
    AskHost,
    AskWorkers,
    Channel,
    Collect,
    FromWorker,
    HostMetrics,
    Metrics,
    Question,
    Questions,
    Retire,
    Sample,
    SendAway,
    ToWorker,
    WorkersAnswers,
)

SAMPLE_INTERVAL = 1.0
"""Seconds between two reports."""

HOST_TIMEOUT = 3.0
"""Seconds for the metrics of all workers: longer than one worker has, shorter than a scrape's ten."""


class NoHost(Exception):
    """The supervisor does not answer."""


log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class WorkerCallbacks:
    """Functions of the server that the supervisor's messages call.

    `sample` and `metrics` report. `retire` stops taking connections and returns when that is done.
    `send_away` tells a number of clients to reconnect. `answer` answers another worker's question.
    """

    sample: Callable[[], Sample]
    metrics: Callable[[], str]
    retire: Callable[[], Awaitable[None]]
    send_away: Callable[[int], None]
    answer: Callable[[str], Awaitable[str]]


class SupervisorLink:
    """`number` names the worker among its supervisor's; `fd` is the channel's descriptor."""

    def __init__(self, number: int, fd: int) -> None:
        self.number = number
        sock = socket.socket(fileno=fd)
        sock.set_inheritable(False)
        self._channel: Channel[ToWorker] = Channel(sock, ToWorker)
        self._questions: Questions[ToWorker, str | None] = Questions(self._channel, HOST_TIMEOUT)
        self._to_all: Questions[ToWorker, dict[int, str | None]] = Questions(
            self._channel, HOST_TIMEOUT
        )

    async def run(self, callbacks: WorkerCallbacks) -> None:
        """Report and follow messages, until cancelled or until the supervisor is gone."""
        retiring = False
        try:
            async with trio.open_nursery() as tasks:
                tasks.start_soon(self._report, callbacks.sample)
                async for message in self._channel.receive():
                    match message:
                        case Retire() if not retiring:
                            retiring = True
                            log.info("retiring")
                            tasks.start_soon(callbacks.retire)
                        case SendAway(count):
                            callbacks.send_away(count)
                        case Collect(number):
                            await self._send(Metrics(number, callbacks.metrics()))
                        case HostMetrics(number, page):
                            self._questions.answer(number, page)
                        case Question():
                            tasks.start_soon(self._answer, callbacks.answer, message)
                        case WorkersAnswers(number, answers):
                            self._to_all.answer(number, answers)
                tasks.cancel_scope.cancel()
        finally:
            self._channel.close()
        log.error("the supervisor is gone")

    async def host_metrics(self, worker: str | None) -> str | None:
        """Return the metrics of all workers, or of one; None if that worker does not exist, "" if it
        gives no answer.

        Errors: NoHost.
        """
        try:
            return await self._questions.ask(lambda number: AskHost(number, worker))
        except (trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError):
            raise NoHost from None

    async def ask_workers(self, text: str) -> dict[int, str | None]:
        """Return all workers' answers to a question by their numbers, None for one without an answer.

        Errors: NoHost.
        """
        try:
            return await self._to_all.ask(lambda number: AskWorkers(number, text))
        except (trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError):
            raise NoHost from None

    async def _answer(self, answer: Callable[[str], Awaitable[str]], question: Question) -> None:
        await self._send(Answer(question.id, await answer(question.text)))

    async def _report(self, sample: Callable[[], Sample]) -> None:
        while True:
            await self._send(sample())
            await trio.sleep(SAMPLE_INTERVAL)

    async def _send(self, message: FromWorker) -> None:
        try:
            await self._channel.send(message)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            # The reading side notices, too.
            pass
