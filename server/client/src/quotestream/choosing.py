"""Chooses the driver by the library that runs the caller.

There are two drivers, each for one library and about as long as its sockets. *Rejected:* anyio, which
would be one driver for both. The client needs little of it (an event, a sleep, one task beside a block,
one socket), its WebSocket would have to be written all the same, and the server's other clients use
trio-websocket already. An asyncio application also gets plain asyncio: it may enter and leave the block
in different tasks, which the cancel scopes of anyio forbid.
"""

import sniffio

from quotestream.driver import Driver


def running_driver() -> Driver:
    """Return the driver of the library that runs the caller: trio or asyncio.

    Errors: RuntimeError outside a coroutine, or in another library.
    """
    try:
        library = sniffio.current_async_library()
    except sniffio.AsyncLibraryNotFoundError:
        raise RuntimeError(
            "connect() needs a running trio or asyncio; scripts can call quotestream.get()"
        ) from None
    if library == "trio":
        from quotestream.trio_driver import TrioDriver

        return TrioDriver()
    if library == "asyncio":
        from quotestream.asyncio_driver import AsyncioDriver

        return AsyncioDriver()
    raise RuntimeError(f"quotestream runs on trio and asyncio, not on {library}")
