"""Opens the asyncio loop that asyncpg and redis need, once, around all code that uses them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def open_asyncio_loop(*urls: str) -> AsyncIterator[None]:
    """Keep trio-asyncio's loop open within the context, or do nothing if all `urls` are empty.

    An exception raised within comes out as it is, not in a group of the loop's own nurseries.
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
