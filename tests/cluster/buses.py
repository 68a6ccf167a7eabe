"""Buses of several instances on one Redis."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import trio
import trio_asyncio

from server.cluster.bus import Bus, open_bus
from server.cluster.state import Policy
from server.cluster.stats import ClusterStats
from server.quotes.snapshot import LiveSnapshot

LEASE = 1.5
"""Seconds: a command may take a third of it, and takes some milliseconds on a busy machine."""


TIMEOUT = 30.0


POLICY = Policy(lease=LEASE, stale_after=2.0, candidate=True, local=False)


@asynccontextmanager
async def buses(server, count: int = 2) -> AsyncIterator[list[Bus]]:
    with trio.fail_after(TIMEOUT):
        async with trio_asyncio.open_loop(), AsyncExitStack() as stack:
            url = f"redis://127.0.0.1:{server.port}/0"
            yield [
                await stack.enter_async_context(open_bus(url, f"i{n}", POLICY, ClusterStats()))
                for n in range(count)
            ]


def snapshot(symbol: str, version: int) -> LiveSnapshot:
    return LiveSnapshot(symbol, symbol, 1, 10.0, 10.0, version=version, quoted_at=1, ts=2)


async def lead(bus: Bus, own: int | None = None, known: int | None = None) -> int:
    """Get the lease, and return the epoch to lead in."""
    epoch = (await bus.acquire_lease(own=own, known=known)).epoch
    assert epoch is not None
    return epoch
