"""Clients' compressed messages, read by the protocol without a server (RFC 7692 §6, §7.2.2)."""

import tracemalloc
import zlib
from typing import cast

import pytest
from wsproto.frame_protocol import CloseReason, FrameProtocol, Opcode, ParseFailed

from server.gateway.deflate import Inflate
from tests.gateway.wire import CONTINUATION, PING, TEXT, frame

RSV1 = 0x40
LIMIT = 1000


def deflated(text: bytes, level: int = -1) -> bytes:
    compressor = zlib.compressobj(level, wbits=-15)
    return (compressor.compress(text) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def read(*frames: bytes, offered: bool = True) -> list[object]:
    """Return the texts of the messages, and the code of the error that ends the connection."""
    extensions = [Inflate(LIMIT)] if offered else []
    decoder = FrameProtocol(client=False, extensions=list(extensions))
    messages: list[object] = []
    text = ""
    try:
        for data in frames:
            decoder.receive_bytes(data)
            for each in decoder.received_frames():
                if each.opcode is not Opcode.TEXT:
                    messages.append(bytes(cast("bytearray", each.payload)))
                    continue
                text += str(each.payload)
                if each.message_finished:
                    messages.append(text)
                    text = ""
    except ParseFailed as error:
        messages.append(error.code)
    return messages


def compressed(payload: bytes, *, fin: bool = True) -> bytes:
    return frame(TEXT | RSV1, payload, fin=fin)


def test_compressed_and_plain_messages_come_in_any_order():
    """Each message tells which one it is, and is compressed by itself."""
    hello = compressed(deflated(b"hello"))
    assert read(hello, frame(TEXT, b"plain"), hello, hello) == ["hello", "plain", "hello", "hello"]


def test_message_comes_in_any_pieces():
    """Control frames between them are not compressed."""
    data = deflated(b"hello" * 20)
    pieces = [data[:3], data[3:5], b"", data[5:]]
    frames = [compressed(pieces[0], fin=False)]
    for piece in pieces[1:]:
        frames += [frame(PING, b"ping"), frame(CONTINUATION, piece, fin=piece is pieces[-1])]
    whole = ["hello" * 20]
    assert read(*frames) == [b"ping"] * 3 + whole
    assert read(*(bytes([byte]) for each in frames for byte in each)) == [b"ping"] * 3 + whole


@pytest.mark.parametrize("level", [0, 9])
@pytest.mark.parametrize("pieces", [1, 2])
def test_message_may_be_as_long_as_its_limit(level, pieces):
    """In either form. The next message has the whole limit again."""

    def message(size: int) -> list[bytes]:
        data = deflated(b"x" * size, level)
        middle = len(data) // pieces
        rest = [frame(CONTINUATION, data[middle:])] if pieces == 2 else []
        return [compressed(data[:middle], fin=pieces == 1), *rest]

    # Stored blocks (level 0) have a few bytes more than the text.
    longest = LIMIT if level else LIMIT - 11
    assert read(*message(longest), *message(longest)) == ["x" * longest] * 2
    assert read(*message(LIMIT + 1)) == [CloseReason.MESSAGE_TOO_BIG]


def test_bomb_is_refused_before_it_is_whole():
    """A megabyte of zeros takes a thousand bytes, and blocks without a text may come without end."""
    empty_block = b"\x00\x00\x00\xff\xff"
    assert read(compressed(deflated(bytes(1_000_000)))) == [CloseReason.MESSAGE_TOO_BIG]
    count = LIMIT // len(empty_block)
    assert read(compressed(empty_block * count)) == [""]
    assert read(compressed(empty_block * count + b"\x00")) == [CloseReason.MESSAGE_TOO_BIG]
    half = empty_block * (count // 2 + 1)
    ends = read(compressed(half, fin=False), frame(CONTINUATION, half, fin=False))
    assert ends == [CloseReason.MESSAGE_TOO_BIG]


def test_no_more_than_the_limit_is_inflated():
    """Neither at once, nor from a bomb behind a text that leaves one byte."""
    text = b"x" * (LIMIT - 1)
    bomb = deflated(text + bytes(700_000))
    for cut in (0, len(deflated(text)) - 2):
        tracemalloc.start()
        ends = read(compressed(bomb[:cut], fin=False), frame(CONTINUATION, bomb[cut:]))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert ends == [CloseReason.MESSAGE_TOO_BIG]
        assert peak < 200_000


def test_message_whose_end_is_missing_is_an_error():
    """Here it is a block of ten bytes that has five."""
    cut = b"\x00\x0a\x00\xf5\xff" + b"hello"
    assert read(compressed(cut)) == [CloseReason.INVALID_FRAME_PAYLOAD_DATA]


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([compressed(b"\xff\xff\xff\xff")], CloseReason.INVALID_FRAME_PAYLOAD_DATA),
        ([compressed(deflated(b"\xff"))], CloseReason.INVALID_FRAME_PAYLOAD_DATA),
        ([frame(PING | RSV1, b"")], CloseReason.PROTOCOL_ERROR),
        ([frame(PING | 0x20, b"")], CloseReason.PROTOCOL_ERROR),
        ([frame(PING | 0x10, b"")], CloseReason.PROTOCOL_ERROR),
        ([frame(TEXT | 0x20, b"")], CloseReason.PROTOCOL_ERROR),
        ([frame(TEXT | 0x10, b"")], CloseReason.PROTOCOL_ERROR),
        (
            [compressed(deflated(b"a"), fin=False), frame(CONTINUATION | RSV1, b"")],
            CloseReason.PROTOCOL_ERROR,
        ),
    ],
)
def test_wrong_compression_is_an_error(frames, code):
    """Only a message's first frame may have the bit, no frame another one, and the text is UTF-8."""
    assert read(*frames) == [code]


def test_nothing_is_inflated_if_it_was_not_agreed():
    """The bit is an error then."""
    data = compressed(deflated(b"hello"))
    assert read(data, offered=False) == [CloseReason.PROTOCOL_ERROR]
