"""The asyncio loop that asyncpg and redis need, opened once, around everything that uses them."""

from contextlib import AbstractAsyncContextManager, nullcontext


def open_asyncio_loop(*urls: str) -> AbstractAsyncContextManager[object]:
    """trio-asyncio's loop for the time of the context; nothing where none of `urls` is configured."""
    if not any(urls):
        return nullcontext()
    import trio_asyncio

    loop: AbstractAsyncContextManager[object] = trio_asyncio.open_loop()
    return loop
