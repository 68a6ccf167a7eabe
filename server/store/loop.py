"""The asyncio loop that asyncpg and redis need, opened once, around everything that uses them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def open_asyncio_loop(*urls: str) -> AsyncIterator[None]:
    """trio-asyncio's loop for the time of the context; nothing where none of `urls` is configured.

    What is raised within comes out as it is, not in groups of the loop's own nurseries.
    """
    if not any(urls):
        yield
        return
    import trio_asyncio

    failure: Exception | None = None
    async with trio_asyncio.open_loop():
        try:
            yield
        except Exception as error:
            failure = error
    if failure is not None:
        raise failure
