"""Chooses the driver by the library that runs the caller.

There are two drivers, each for one library and about as long as its sockets. *Rejected:* anyio, which
would be one driver for both. The client needs little of it (an event, a sleep, one task beside a block,
one socket), its WebSocket would have to be written all the same, and the server's other clients use
trio-websocket already. An asyncio application also gets plain asyncio: it may enter and leave the block
in different tasks, which the cancel scopes of anyio forbid.
"""

import sniffio

from quotestream.driver import Driver
from quotestream.errors import Misused


def running_driver() -> Driver:
    """Return the driver of the library that runs the caller: trio or asyncio.

    Errors: Misused outside a coroutine, or in another library.
    """
    library = running_library()
    if library is None:
        raise Misused(
            "connect() needs a running trio or asyncio; scripts can call quotestream.get()"
        )
    if library == "trio":
        from quotestream.trio_driver import TrioDriver

        return TrioDriver()
    if library == "asyncio":
        from quotestream.asyncio_driver import AsyncioDriver

        return AsyncioDriver()
    raise Misused(f"quotestream runs on trio and asyncio, not on {library}")


def running_library() -> str | None:
    """Return the name of the library that runs the caller, None if none does."""
    try:
        return sniffio.current_async_library()
    except sniffio.AsyncLibraryNotFoundError:
        return None
