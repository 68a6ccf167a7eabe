"""Lets handshakes pass a few at a time, so that other tasks run in between.

After a deploy ten thousand clients connect at the same moment. A handshake takes a quarter of a
millisecond. All of them in one pass of the event loop would stop prices for seconds.
"""

import trio


class HandshakePacer:
    """Tasks call `enter`, and the one task in `run` lets them through, first come first served.

    `per_pass`: tasks let through in one pass of the event loop.
    """

    def __init__(self, per_pass: int) -> None:
        self._per_pass = per_pass
        self._waiting = trio.lowlevel.ParkingLot()
        self._wanted = trio.Event()

    async def enter(self) -> None:
        """Wait until the calling task may go on."""
        self._wanted.set()
        await self._waiting.park()

    async def run(self) -> None:
        """Let tasks through until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            while self._waiting:
                self._waiting.unpark(count=self._per_pass)
                await trio.lowlevel.checkpoint()
