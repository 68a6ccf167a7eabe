"""The connection on which `quotestream publish` sends its frames."""

from collections.abc import Sequence

import pytest
import trio
from trio_websocket import CloseReason, ConnectionClosed

from quotestream.errors import Refused
from server.client.publish import Publication, Summary, _Exchange
from server.client.published import Entry, Object


class ClosedSocket:
    """A connection that the server closed because of what it was sent: only sending notices it."""

    async def send_message(self, text: str) -> None:
        raise ConnectionClosed(CloseReason(1009, "message too big"))

    async def get_message(self) -> str:
        await trio.sleep_forever()
        raise AssertionError


class Silent:
    """A listener that nobody hears."""

    def on_rejected(self, line: int, code: str, message: str) -> None:
        raise AssertionError

    def on_wait(self, problem: str, seconds: float) -> None:
        raise AssertionError


async def test_final_close_that_sending_notices_is_a_refusal(autojump_clock):
    """The same frames would fare no better on the next connection, so there is none."""
    send, entries = trio.open_memory_channel[Sequence[Entry]](1)
    await send.send([Entry(1, Object('{"symbol":"A","price":1}', numbered=True))])
    publication = Publication(entries, "", Summary(), Silent())
    with trio.fail_after(5), pytest.raises(Refused, match="1009 message too big"):
        await _Exchange(publication, ClosedSocket()).run()  # type: ignore[arg-type]  # a fake
