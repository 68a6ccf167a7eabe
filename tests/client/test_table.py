"""The table of `quotestream watch`."""

import json

from server.client.document import Document
from server.client.table import Screen
from server.quotes.messages import Status, encode
from server.quotes.quote import opening_quote
from tests.fanout.peer import START_US, instruments


def test_quiet_symbols_are_dim():
    """A symbol that does not trade is told from one that does, until it trades again."""
    document = Document()
    for instrument in instruments("AAPL", "MSFT"):
        quote = json.loads(encode(opening_quote(instrument, START_US)))
        path = f"/quotes/{instrument.symbol}"
        document.apply(
            {
                "versions": {instrument.symbol: 1},
                "operations": [{"op": "add", "path": path, "value": quote}],
            }
        )
    screen = Screen()
    for status, styles in (
        (Status("stale", "quiet", symbols=["MSFT"]), [None, "dim"]),
        (Status("live", "traded", symbols=["MSFT"]), [None, None]),
    ):
        screen.update(document, json.loads(encode(status)))
        assert [row.style for row in screen.draw().rows] == styles
