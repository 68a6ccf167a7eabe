"""quotestream: a client for live market quotes, on trio and asyncio.

    async with quotestream.connect(url, token=token, symbols=["AAPL"]) as quotes:
        async for change in quotes:
            print(change.symbol, change.quote)

`connect` gives a mapping of quotes that keeps itself up to date. `get` is for scripts that want the
present quotes once. docs/python.md shows the whole.
"""

from quotestream.bars import Bars
from quotestream.blocking import get
from quotestream.client import Quotes, connect
from quotestream.errors import CommandRefused, Ended, Error, Misused, Refused, TimedOut
from quotestream.values import Bar, Change, Market, Quote, State

__all__ = [
    "Bar",
    "Bars",
    "Change",
    "CommandRefused",
    "Ended",
    "Error",
    "Market",
    "Misused",
    "Quote",
    "Quotes",
    "Refused",
    "State",
    "TimedOut",
    "connect",
    "get",
]
