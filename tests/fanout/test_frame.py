"""Frames against an independent parser."""

import json
import random
import socket

import pytest
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from server.fanout.frame import (
    DEFLATE_WINDOW_BITS,
    MAX_CONTROL_PAYLOAD,
    close_frame,
    deflate,
    pong_frame,
    text_frame,
)
from server.quotes.messages import encode
from server.quotes.quote import opening_quote
from tests.fanout.peer import START_US, instruments, publish


def parse(data: bytes, *extensions: Extension) -> Frame:
    """The one frame that `data` is."""
    reader = StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    parsing = Frame.parse(reader.read_exact, mask=False, extensions=extensions)
    with pytest.raises(StopIteration) as done:
        next(parsing)
    assert next(reader.at_eof(), None) is None
    frame: Frame = done.value.value
    return frame


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 1_000_000])
def test_text_frame_of_any_size(size):
    """Each of the three length encodings is used where RFC 6455 §5.2 wants it."""
    frame = parse(text_frame(b"x" * size))
    assert (frame.opcode, frame.fin, len(frame.data)) == (Opcode.TEXT, True, size)
    header = 2 if size < 126 else 4 if size < 65536 else 10
    assert len(text_frame(b"x" * size)) == header + size


@pytest.mark.parametrize("size", [0, 1, MAX_CONTROL_PAYLOAD])
def test_pong_frame(size):
    """A pong carries the ping's payload."""
    frame = parse(pong_frame(b"p" * size))
    assert (frame.opcode, bytes(frame.data)) == (Opcode.PONG, b"p" * size)


def test_close_frame():
    """Code and reason, or neither; a reason too long is cut to what a control frame holds."""
    assert bytes(parse(close_frame(1001, "bye")).data) == b"\x03\xe9bye"
    assert bytes(parse(close_frame(1000)).data) == b"\x03\xe8"
    assert bytes(parse(close_frame(None)).data) == b""
    assert len(parse(close_frame(1008, "x" * 500)).data) == MAX_CONTROL_PAYLOAD


def inflater() -> Extension:
    """What a client negotiates with: no context takeover, and the server's small window."""
    return PerMessageDeflate(True, True, DEFLATE_WINDOW_BITS, DEFLATE_WINDOW_BITS)


@pytest.mark.parametrize("size", [1, 100, 125, 126, 65535, 65536, 200_000])
def test_compressed_frame(size):
    """Another inflates it within the window that was negotiated (RFC 7692 §7.2.1)."""
    # What repeats is farther away than the window is wide.
    noise = random.Random(size).randbytes(2**DEFLATE_WINDOW_BITS + 1000)
    payload = (noise * 50)[:size]
    frame = deflate(text_frame(payload))
    assert frame[0] == 0xC1
    assert not frame.endswith(b"\x00\x00\xff\xff")
    assert bytes(parse(frame, inflater()).data) == payload


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
    assert json.loads(bytes(parse(data, inflater()).data)) == plain.messages[-1]
    hub.detach(outbox, [hub.topics["AAPL"]])
    sock.close()
    client.close()
