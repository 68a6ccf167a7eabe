"""Quotes for scripts, without a coroutine in sight."""

import asyncio

from quotestream.choosing import running_library
from quotestream.client import connect
from quotestream.errors import Misused, TimedOut
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

    Several threads may call it at a time. Each call has a connection and an event loop of its own.

    Errors: Refused, also if none of the symbols exists; TimedOut; Misused inside a coroutine;
    ValueError for an address or a token that is not one; TypeError for a list of symbols.
    """
    if _is_in_a_loop():
        raise Misused("get() blocks the event loop that runs here; use connect() in a coroutine")
    client = connect(url, token=token, symbols=symbols)

    async def ask() -> dict[str, Quote]:
        async with asyncio.timeout(timeout), client as quotes:
            return dict(quotes)

    try:
        return asyncio.run(ask())
    except TimeoutError:
        problem = f": {client.reason}" if client.reason else ""
        raise TimedOut(f"{url} gave no answer within {timeout:g} s{problem}") from None


def _is_in_a_loop() -> bool:
    """Return whether asyncio or trio runs the caller, also outside a task."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return running_library() is not None
    return True
