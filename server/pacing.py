"""Limits the work that a task does before other tasks have their turn, and how it waits for them."""

from collections.abc import Callable

import trio

CHECKPOINT_EVERY = 128
"""Connections served between two checkpoints. To write to so many takes about a millisecond, and to
call so many deadlines takes a few.
"""

PASSES = 32
"""Passes of the loop to wait for other tasks before a sleep. Each costs the waiting task 5 µs."""

LOOK_INTERVAL = 0.001
"""Seconds between two looks after these passes."""


async def wait_until(done: Callable[[], bool]) -> None:
    """Wait for work that other tasks do in the next passes of the loop, with a look after each.

    An event for each piece of work would cost the tasks that do it, whether somebody waits or not.
    """
    for _ in range(PASSES):
        await trio.lowlevel.checkpoint()
        if done():
            return
    while not done():  # noqa: ASYNC110 (see above)
        await trio.sleep(LOOK_INTERVAL)
