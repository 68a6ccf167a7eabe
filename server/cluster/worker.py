"""A worker's end of the control channel: it reports once a second and ends with its supervisor."""

import socket
from collections.abc import Callable

import structlog
import trio

from server.cluster.control import Channel, Sample

SAMPLE_INTERVAL = 1.0
"""Seconds between two reports."""

log = structlog.get_logger()


class SupervisorLink:
    """`number` names the worker among those of its supervisor; `fd` is the channel's descriptor."""

    def __init__(self, number: int, fd: int) -> None:
        self.number = number
        self._socket = socket.socket(fileno=fd)
        self._socket.set_inheritable(False)

    async def run(self, sample: Callable[[], Sample]) -> None:
        """Report until the supervisor is gone, or cancelled."""
        channel: Channel[None] = Channel(self._socket, None)
        try:
            async with trio.open_nursery() as tasks:
                tasks.start_soon(self._report, channel, sample)
                async for _ in channel.receive():
                    pass
                tasks.cancel_scope.cancel()
        finally:
            channel.close()
        log.error("the supervisor is gone")

    async def _report(self, channel: Channel[None], sample: Callable[[], Sample]) -> None:
        while True:
            try:
                await channel.send(sample())
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return  # reading tells
            await trio.sleep(SAMPLE_INTERVAL)
