"""How a worker leaves while others go on: its clients are sent to them, as many as they can take."""

from collections import deque
from collections.abc import Callable

import structlog
import trio

from server.workers.control import Retire, SendAway
from server.workers.process import Stage, Worker

SLICE_INTERVAL = 0.25
"""Seconds between two slices of clients that are sent away."""

LEAVE_TIME = 0.75
"""Seconds in which a worker leaves its ports: who was sent away before could come back to it."""

RETURN_TIME = 5.0
"""Seconds in which those sent away are back, and counted where they are: they wait for up to one, close
the connection, and connect; then a sample is due.
"""

log = structlog.get_logger()


class Pace:
    """How many clients may be sent away; knows neither clock nor workers. `rate`: at most, a second."""

    def __init__(self, rate: int) -> None:
        self._slice = max(1, round(rate * SLICE_INTERVAL))
        self._away: deque[tuple[float, int]] = deque()

    def take(self, now: float, room: int) -> int:
        """The next slice's size, if elsewhere `room` places are free."""
        while self._away and self._away[0][0] <= now - RETURN_TIME:
            self._away.popleft()
        # Who is back is counted twice for a while: late is better than refused.
        size = max(0, min(self._slice, room - sum(size for _, size in self._away)))
        if size:
            self._away.append((now, size))
        return size

    @property
    def waits(self) -> bool:
        """Whether nobody is on the way: what there is no room for waits for others to leave."""
        return not self._away


async def retire(worker: Worker, room: Callable[[], int], rate: int) -> None:
    """Send the clients of `worker` away, at most `rate` a second and not more than there is `room` for;
    when the last is gone it ends.
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
        pass  # it has ended
