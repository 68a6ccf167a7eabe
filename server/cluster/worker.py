"""A worker's end of the control channel: it reports once a second and ends with its supervisor."""

import socket
from collections.abc import Awaitable, Callable

import structlog
import trio

from server.cluster.control import Channel, Retire, Sample, SendAway, ToWorker

SAMPLE_INTERVAL = 1.0
"""Seconds between two reports."""

log = structlog.get_logger()


class SupervisorLink:
    """`number` names the worker among those of its supervisor; `fd` is the channel's descriptor."""

    def __init__(self, number: int, fd: int) -> None:
        self.number = number
        self._socket = socket.socket(fileno=fd)
        self._socket.set_inheritable(False)

    async def run(
        self,
        sample: Callable[[], Sample],
        retire: Callable[[], Awaitable[None]],
        send_away: Callable[[int], None],
    ) -> None:
        """Report, and do as told, until the supervisor is gone, or cancelled.

        Arguments:
            retire: take no new connections; returns when that is so.
            send_away: tell so many clients to go.
        """
        channel: Channel[ToWorker] = Channel(self._socket, ToWorker)
        try:
            async with trio.open_nursery() as tasks:
                tasks.start_soon(self._report, channel, sample)
                async for message in channel.receive():
                    match message:
                        case Retire():
                            log.info("retiring")
                            await retire()
                        case SendAway(count):
                            send_away(count)
                tasks.cancel_scope.cancel()
        finally:
            channel.close()
        log.error("the supervisor is gone")

    async def _report(self, channel: Channel[ToWorker], sample: Callable[[], Sample]) -> None:
        while True:
            try:
                await channel.send(sample())
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return  # reading tells
            await trio.sleep(SAMPLE_INTERVAL)
