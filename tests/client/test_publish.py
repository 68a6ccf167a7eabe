"""The connection on which `quotestream publish` sends its frames."""

import json
from collections.abc import Sequence
from functools import partial

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


async def test_objects_without_numbers_get_numbers_or_names():
    """A number that is given here is never one of the file's own. So no object is lost as a repetition,
    and each counts once though it is sent twice.
    """
    send, entries = trio.open_memory_channel[Sequence[Entry]](3)
    bare = Object('{"symbol":"A","price":1}', numbered=False)
    own = Object('{"symbol":"A","price":1,"seq":1}', numbered=True)
    halt = Object('{"kind":"status","symbol":"A","status":"halted"}', numbered=False, named=True)
    for batch in ([bare, halt], [bare, own], [bare, halt]):
        await send.send([*map(partial(Entry, 1), batch)])
    publication = Publication(entries, "", Summary(), Silent())
    found = []
    for _ in range(3):
        frame = await publication.following()
        assert frame
        publication.sent(frame)
        found.append((frame.epoch, [json.loads(each) for each in frame.objects]))
    (first, numbered), (second, mixed), (third, named) = found
    assert (first[:8], second, third) == ("publish-", "", "")
    assert [each["seq"] for each in numbered] == [1, 2]
    assert [each.get("seq") for each in mixed + named] == [None, 1, None, None]
    ids = [mixed[0]["id"], named[0]["id"]]
    assert len(set(ids)) == 2
    assert all(each.startswith(first) for each in ids)
    assert "id" not in mixed[1] | named[1]
