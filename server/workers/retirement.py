"""Retires a worker while others go on: it sends its clients away as fast as the others have room."""

from collections import deque
from collections.abc import Callable

import structlog
import trio

from server.workers.control import Retire, SendAway
from server.workers.process import Stage, Worker

SLICE_INTERVAL = 0.25
"""Seconds between two slices of clients that are sent away."""

LEAVE_TIME = 0.75
"""Seconds in which a worker leaves its ports. Clients sent away earlier could come back to it."""

RETURN_TIME = 5.0
"""Seconds until clients that were sent away are back and counted. They wait for up to one second and
connect. After that, the next report counts them.
"""

log = structlog.get_logger()


class Pace:
    """Decides how many clients may be sent away, `rate` a second at most, without clock and workers."""

    def __init__(self, rate: int) -> None:
        self._slice = max(1, round(rate * SLICE_INTERVAL))
        self._away: deque[tuple[float, int]] = deque()

    def take(self, now: float, room: int) -> int:
        """Return the next slice's size. The other workers have `room` free places."""
        while self._away and self._away[0][0] <= now - RETURN_TIME:
            self._away.popleft()
        # A client that is back counts twice for a while: late is better than refused.
        size = max(0, min(self._slice, room - sum(size for _, size in self._away)))
        if size:
            self._away.append((now, size))
        return size

    @property
    def waits(self) -> bool:
        """Whether no client is on its way back. The rest then waits until the others have room."""
        return not self._away


async def retire(worker: Worker, room: Callable[[], int], rate: int) -> None:
    """Send the clients of `worker` away, at most `rate` a second and as many as there is `room` for.

    The worker ends after its last client.
    """
    log.info("worker retires", worker=worker.number, connections=worker.places)
    worker.stage = Stage.RETIRING
    pace = Pace(rate)
    told = False
    try:
        await worker.channel.send(Retire())
        await trio.sleep(LEAVE_TIME)
        while not worker.ended:
            size = pace.take(trio.current_time(), room()) if worker.places else 0
            if size:
                await worker.channel.send(SendAway(size))
            elif worker.places and pace.waits and not told:
                log.warning("retiring waits for room elsewhere", worker=worker.number)
                told = True
            await trio.sleep(SLICE_INTERVAL)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        # It has ended.
        pass
