"""The frame counter, on which all figures of delivered frames depend."""

from hypothesis import given
from hypothesis import strategies as st

from bench.wire import count_long_frames

AWKWARD = (126, 129, 0x17E, 0x181, 0x7E81)
"""Lengths that contain the bytes that begin a frame."""


def frame(size: int) -> bytes:
    return b"\x81\x7e" + size.to_bytes(2) + b"{" * size


@given(st.lists(st.sampled_from(AWKWARD) | st.integers(126, 2000), max_size=30), st.data())
def test_frames_are_counted_wherever_the_stream_is_cut(sizes, data):
    """Every frame is counted once, except one cut after its first byte, which the reader adds."""
    stream = b"".join(map(frame, sizes))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    parts = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    apart = sum(stream[cut - 1 : cut + 1] == b"\x81\x7e" for cut in {*cuts} - {0})
    assert sum(count_long_frames(part, len(part)) for part in parts) == len(sizes) - apart


def test_what_was_read_before_is_not_counted():
    """Old bytes behind the last read are not counted."""
    buffer = bytearray(frame(200) + frame(300))
    assert count_long_frames(buffer, 204) == 1
    assert count_long_frames(buffer, 205) == 1
    assert count_long_frames(buffer, 206) == 2
