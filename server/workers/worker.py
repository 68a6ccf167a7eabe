"""A worker's end of the control channel. It reports once a second and ends with its supervisor."""

import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
import trio

from server.workers.control import (
    AskHost,
    Channel,
    Collect,
    FromWorker,
    HostMetrics,
    Metrics,
    Questions,
    Retire,
    Sample,
    SendAway,
    ToWorker,
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
    `send_away` tells a number of clients to reconnect.
    """

    sample: Callable[[], Sample]
    metrics: Callable[[], str]
    retire: Callable[[], Awaitable[None]]
    send_away: Callable[[int], None]


class SupervisorLink:
    """`number` names the worker among its supervisor's; `fd` is the channel's descriptor."""

    def __init__(self, number: int, fd: int) -> None:
        self.number = number
        sock = socket.socket(fileno=fd)
        sock.set_inheritable(False)
        self._channel: Channel[ToWorker] = Channel(sock, ToWorker)
        self._questions = Questions(self._channel, HOST_TIMEOUT)

    async def run(self, callbacks: WorkerCallbacks) -> None:
        """Report and follow messages, until cancelled or until the supervisor is gone."""
        try:
            async with trio.open_nursery() as tasks:
                tasks.start_soon(self._report, callbacks.sample)
                async for message in self._channel.receive():
                    match message:
                        case Retire():
                            log.info("retiring")
                            tasks.start_soon(callbacks.retire)
                        case SendAway(count):
                            callbacks.send_away(count)
                        case Collect(number):
                            await self._send(Metrics(number, callbacks.metrics()))
                        case HostMetrics(number, page):
                            self._questions.answer(number, page)
                tasks.cancel_scope.cancel()
        finally:
            self._channel.close()
        log.error("the supervisor is gone")

    async def host_metrics(self, worker: str | None) -> str | None:
        """Return the metrics of all workers, or of one; None if that worker does not exist.

        Errors: NoHost.
        """
        try:
            return await self._questions.ask(lambda number: AskHost(number, worker))
        except (trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError):
            raise NoHost from None

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
