"""The messages about bars on a WebSocket."""

from datetime import UTC, datetime

import msgspec

from server.history.bar import Bar
from server.quotes.traded import Timeframe


class BarMessage(msgspec.Struct, frozen=True, tag_field="type", tag="bar"):
    """A bar as it is now. It replaces any that the client has of this `t`."""

    symbol: str
    timeframe: Timeframe
    bar: Bar


class BarsEnd(msgspec.Struct, frozen=True, tag_field="type", tag="bars_end"):
    """All bars that began at `t`, or before, are final, and were sent."""

    timeframe: Timeframe
    t: datetime


class BarsMissed(msgspec.Struct, frozen=True, tag_field="type", tag="bars_missed"):
    """The client was too slow for some final bars of `symbol`, and should ask `GET /bars` for them."""

    symbol: str
    timeframe: Timeframe


def minute_time(minute: int) -> datetime:
    """Return the time at which a minute begins."""
    return datetime.fromtimestamp(minute * 60, UTC)
