"""Publish one trade: python publish.py URL SYMBOL PRICE. TOKEN is the token of a publisher."""

import json
import os
import sys
from typing import Any
from urllib.request import Request, urlopen


def publish(url: str, token: str, trades: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the server's answer. Errors: urllib.error.HTTPError, if it refuses all trades."""
    body = "\n".join(json.dumps(trade) for trade in trades)
    request = Request(url, body.encode(), {"Authorization": f"Bearer {token}"})
    with urlopen(request, timeout=30) as response:
        answer: dict[str, Any] = json.load(response)
    return answer


if __name__ == "__main__":
    trade = {"symbol": sys.argv[2], "price": float(sys.argv[3]), "size": 100}
    print(publish(sys.argv[1], os.environ["TOKEN"], [trade]))
