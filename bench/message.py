"""The update that the bare loop and the peers send: as long as the server's, in the same format."""

from time import time_ns

_UPDATE = (
    '{"type":"quotes_patch","ts":%d,"versions":{"%s":%d},"operations":['
    '{"op":"replace","path":"/quotes/%s/current_price","value":175.92},'
    '{"op":"replace","path":"/quotes/%s/change","value":0.42},'
    '{"op":"replace","path":"/quotes/%s/change_percent","value":0.2393},'
    '{"op":"replace","path":"/quotes/%s/last_updated","value":"2026-11-24T12:00:00.123456Z"},'
    '{"op":"replace","path":"/quotes/%s/volume","value":50000300}]}'
)


def update(symbol: str, version: int) -> str:
    """Return one price change of `symbol` with the present time."""
    return _UPDATE % (time_ns() // 1000, symbol, version, *[symbol] * 5)
