"""A trade that comes too late to move the price, as the rules for prices give it to the topics."""

from server.quotes.traded import traded
from server.quotes.update import Change


def late_trade(symbol: str, price: float, size: float, time_us: int, ts: int = 0) -> Change:
    """Return a late trade. It counts for the volume and for the bar of `time_us`."""
    minutes = (traded(price, size, time_us, late=True),)
    return Change(symbol, None, size, 0, ts, minutes=minutes)
