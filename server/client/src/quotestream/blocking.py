"""Quotes for scripts, without a coroutine in sight."""

import asyncio

from quotestream.client import connect
from quotestream.errors import Error, TimedOut
from quotestream.values import Quote

DEFAULT_URL = "ws://127.0.0.1:8080/ws/quotes"
"""The address of a server with its default settings."""

TIMEOUT = 10.0
"""Seconds for the connection and the answer together."""


def get(
    *symbols: str, url: str = DEFAULT_URL, token: str = "", timeout: float = TIMEOUT
) -> dict[str, Quote]:
    """Return the present quotes of `symbols`, by symbol. Symbols that do not exist are left out.

    It opens one WebSocket connection and closes it. A program that asks often should `connect`.

    Arguments:
        timeout: seconds for everything.

    Errors: Refused, also if none of the symbols exists; TimedOut; Error inside a coroutine;
    ValueError for an address or a token that is not one.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise Error("get() blocks the event loop that runs here; use connect() in a coroutine")

    async def ask() -> dict[str, Quote]:
        async with asyncio.timeout(timeout):
            async with connect(url, token=token, symbols=symbols) as quotes:
                return dict(quotes)

    try:
        return asyncio.run(ask())
    except TimeoutError:
        raise TimedOut(f"{url} gave no answer within {timeout:g} s") from None
