"""Compressed updates against an independent client's extension, and the shortest close frame."""

import json
import random
import socket

import pytest
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame
from websockets.streams import StreamReader

from server.fanout.frame import DEFLATE_WINDOW_BITS, close_frame, deflate, text_frame
from server.quotes.messages import encode
from server.quotes.quote import opening_quote
from tests.fanout.peer import START_US, instruments, publish


def inflated(data: bytes) -> bytes:
    """The payload of the one frame that `data` is, as a client reads it that negotiated no context
    takeover and the server's small window.
    """
    extension: Extension = PerMessageDeflate(True, True, DEFLATE_WINDOW_BITS, DEFLATE_WINDOW_BITS)
    reader = StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    parsing = Frame.parse(reader.read_exact, mask=False, extensions=[extension])
    with pytest.raises(StopIteration) as done:
        next(parsing)
    frame: Frame = done.value.value
    return bytes(frame.data)


@pytest.mark.parametrize("size", [1, 100, 125, 126, 65535, 65536, 200_000])
def test_compressed_frame(size):
    """Another inflates it within the window that was negotiated (RFC 7692 §7.2.1)."""
    # The repetition is farther away than the window is wide.
    noise = random.Random(size).randbytes(2**DEFLATE_WINDOW_BITS + 1000)
    payload = (noise * 50)[:size]
    frame = deflate(text_frame(payload))
    assert frame[0] == 0xC1
    assert not frame.endswith(b"\x00\x00\xff\xff")
    assert inflated(frame) == payload


def test_compression_is_worth_its_while():
    """A quote takes less than half of its bytes."""
    quote = encode(opening_quote(instruments("AAPL")[0], START_US))
    assert len(deflate(text_frame(quote * 10))) < len(quote) * 2


async def test_update_is_compressed_for_those_that_negotiated_it(hub, connect):
    """Others get the plain form of the same update."""
    plain = connect("AAPL")
    sock, client = socket.socketpair()
    for end in (sock, client):
        end.setblocking(False)
    outbox = hub.attach(sock, deflate=True)
    hub.subscribe(outbox, hub.topics["AAPL"])
    publish(hub, "AAPL", 101.0)
    await plain.read()
    data = client.recv(65536)
    assert data[0] == 0xC1
    assert json.loads(inflated(data)) == plain.messages[-1]
    hub.detach(outbox, [hub.topics["AAPL"]])
    sock.close()
    client.close()


def test_close_frame_without_a_reason():
    """Only the code is in it."""
    assert close_frame(1000) == b"\x88\x02\x03\xe8"
