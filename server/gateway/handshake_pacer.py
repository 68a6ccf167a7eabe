"""Lets tasks pass a few at a time, with a look at everything else in between.

After a deploy ten thousand clients ask to be let in at the same moment. Each handshake is a quarter
of a millisecond of computing: were all of them served in one pass of the event loop, prices would
stand still for seconds.
"""

import trio


class HandshakePacer:
    """Tasks call `enter`; `run` is the one task that lets them through, first come first served.

    `per_pass`: tasks let through in one pass of the event loop.
    """

    def __init__(self, per_pass: int) -> None:
        self._per_pass = per_pass
        self._waiting = trio.lowlevel.ParkingLot()
        self._wanted = trio.Event()

    async def enter(self) -> None:
        """Wait for one's turn."""
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
