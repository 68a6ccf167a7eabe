"""Starts `quotestream` with a wall clock that is SHIFT seconds ahead."""

import os
import time

SHIFT = float(os.environ["SHIFT"])

_time, _time_ns = time.time, time.time_ns

# The server's modules take these names when they are imported.
time.time = lambda: _time() + SHIFT
time.time_ns = lambda: _time_ns() + int(SHIFT * 1e9)

from server.__main__ import main  # noqa: E402  (after the clock is set)

if __name__ == "__main__":
    main()
