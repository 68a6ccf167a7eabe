"""Frames against an independent parser."""

import pytest
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from server.fanout.frame import MAX_CONTROL_PAYLOAD, close_frame, pong_frame, text_frame


def parse(data: bytes) -> Frame:
    """Return the one frame that `data` is."""
    reader = StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    parsing = Frame.parse(reader.read_exact, mask=False)
    with pytest.raises(StopIteration) as done:
        next(parsing)
    assert next(reader.at_eof(), None) is None
    frame: Frame = done.value.value
    return frame


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 1_000_000])
def test_text_frame_of_any_size(size):
    """Each of the three length encodings is used as RFC 6455 §5.2 says."""
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
    """It has a code and a reason, or neither; a long reason is cut to what a control frame holds."""
    assert bytes(parse(close_frame(1001, "bye")).data) == b"\x03\xe9bye"
    assert bytes(parse(close_frame(None)).data) == b""
    assert len(parse(close_frame(1008, "x" * 500)).data) == MAX_CONTROL_PAYLOAD
