"""Patches for the tests of `watch`, and a market that has seen them."""

from typing import Any

from server.client.document import Document
from server.client.market import Market

NOW = 1_800_000_000.0


def message(
    versions: dict[str, int], prices: dict[str, float] | None = None, **more: Any
) -> dict[str, Any]:
    """Return a `quotes_patch`: full quotes with `prices`, otherwise changes."""
    operations: list[dict[str, Any]] = [
        {
            "op": "add",
            "path": f"/quotes/{symbol}",
            "value": {"current_price": price, "name": symbol},
        }
        for symbol, price in (prices or {}).items()
    ]
    if not prices:
        operations = [{"op": "replace", "path": "/quotes/A/current_price", "value": 2.0}]
    patch: dict[str, Any] = {"type": "quotes_patch", "ts": int(NOW * 1e6), "versions": versions}
    return patch | {"operations": operations} | more


class Followed:
    """A document with a market that saw all its messages."""

    def __init__(self, top: int = 0) -> None:
        self.document, self.market = Document(), Market(top)

    def take(self, versions: dict[str, int], prices: dict[str, float], now: float = NOW) -> None:
        patch = message(versions, prices)
        self.document.apply(patch)
        self.market.take(self.document, patch, now)
