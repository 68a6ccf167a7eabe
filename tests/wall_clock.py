"""A wall clock of servers, which a test sets while they run."""

import mmap
import time
from pathlib import Path

from tests.processes import ServerProcess

ROOT = str(Path(__file__).parents[1])


class WallClock:
    """Several servers may share it: `variables` tell a server where it is."""

    def __init__(self, folder: Path, moment: float) -> None:
        """Let the clock go on from a moment, in seconds since the Unix epoch."""
        path = folder / "wall_clock"
        path.write_bytes(bytes(16))
        with path.open("r+b") as file:
            self._cells = memoryview(mmap.mmap(file.fileno(), 16)).cast("d")
        self.variables = {"PYTHONPATH": ROOT, "WALL_CLOCK": str(path)}
        self.go_on(moment)

    def go_on(self, moment: float | None = None) -> None:
        """Go on from a moment, by default that at which the clock stands."""
        self._cells[0] = (self._cells[1] if moment is None else moment) - time.time()
        self._cells[1] = 0.0

    def stand(self, moment: float) -> None:
        """Stand still at a moment, so that a busy machine does not miss it."""
        self._cells[1] = moment


class ShiftedServer(ServerProcess):
    """A server with a wall clock of its own."""

    module = "tests.shifted"
