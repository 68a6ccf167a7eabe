"""What a client says: from bytes to messages, within its limits.

Most clients only listen and answer pings. An `Inbound`, a fifth of what a connection costs, is made
when a client says anything else.
"""

from wsproto.extensions import Extension
from wsproto.frame_protocol import FrameProtocol

from server.fanout.frame import MAX_CONTROL_PAYLOAD
from server.gateway.deflate import Inflate
from server.gateway.limits import CommandLimit

MAX_MESSAGE = 16 * 1024
"""Bytes of one message from a client; the largest command, 500 symbols, has a quarter of it."""


PONG = 0x8A
MASKED = 0x80
MASK_BYTES = 4


class MessageTooBig(Exception):
    """A message, or what there is of it, exceeds MAX_MESSAGE."""


class Inbound:
    """One client's: `decoder` turns bytes into frames, `limit` counts them."""

    __slots__ = ("_size", "_text", "decoder", "limit")

    def __init__(self, rate: int, *, deflate: bool) -> None:
        """`rate`: frames a second; `deflate`: compression was negotiated."""
        extensions: list[Extension] = [Inflate(MAX_MESSAGE)] if deflate else []
        self.decoder = FrameProtocol(client=False, extensions=extensions)
        self.limit = CommandLimit(rate)
        self._text = ""
        self._size = 0

    def add(self, text: str, *, finished: bool) -> str | None:
        """Add a piece of a message; the whole once it is there. Errors: MessageTooBig."""
        self._size += len(text) if text.isascii() else len(text.encode())
        if self._size > MAX_MESSAGE:
            raise MessageTooBig
        self._text += text  # no list: a client that sends byte by byte would fill it with objects
        if not finished:
            return None
        message, self._text, self._size = self._text, "", 0
        return message


def is_pong(data: bytes) -> bool:
    """Whether `data` is one well-formed pong and nothing else (RFC 6455 §5.5.3)."""
    if len(data) < 2 or data[0] != PONG:
        return False
    size = data[1] - MASKED
    return 0 <= size <= MAX_CONTROL_PAYLOAD and len(data) == 2 + MASK_BYTES + size
