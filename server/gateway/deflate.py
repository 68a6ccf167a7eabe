"""permessage-deflate (RFC 7692) without context takeover: its negotiation, and clients' messages.

Without context takeover a message is compressed by itself, so all connections share one compressed
frame. With it, each connection would need its own compressor, and 300 KB of memory.
"""

import re
import zlib

from wsproto.extensions import Extension
from wsproto.frame_protocol import CloseReason, FrameDecoder, FrameProtocol, Opcode, RsvBits

from server.fanout.frame import DEFLATE_WINDOW_BITS

ANSWER = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"

_WINDOW_BITS = re.compile(r'"?(8|9|1[0-5])"?')
_SYNC_FLUSH = b"\x00\x00\xff\xff"


def negotiate(header: str) -> str | None:
    """Return the answer to a request's `Sec-WebSocket-Extensions`, None if every offer is declined."""
    for offer in header.split(","):
        name, *parameters = (part.strip() for part in offer.split(";"))
        if name == "permessage-deflate" and (answer := _accept(parameters)):
            return answer
    return None


def _accept(parameters: list[str]) -> str | None:
    """Decline an offer with anything unknown, repeated or out of range (RFC 7692 §7.1)."""
    answer, seen = ANSWER, set[str]()
    for parameter in parameters:
        name, _, value = (part.strip() for part in parameter.partition("="))
        bits = _WINDOW_BITS.fullmatch(value)
        if name in seen:
            return None
        seen.add(name)
        if name in ("server_no_context_takeover", "client_no_context_takeover"):
            if "=" in parameter:
                return None
        elif name == "client_max_window_bits":
            if value and not bits:
                return None
        elif name == "server_max_window_bits" and bits and int(bits[1]) >= DEFLATE_WINDOW_BITS:
            answer += f"; server_max_window_bits={bits[1]}"
        else:
            return None
    return answer


class Inflate(Extension):
    """Decompresses a client's messages, each by itself, of at most `limit` bytes in either form.

    wsproto's own extension has no limit: 4 KB of zeros make 4 MB. It would also accept without end
    blocks that make no text, such as empty ones or blocks after the last one.
    """

    name = "permessage-deflate"

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._left = 0
        self._compressed = 0
        self._is_control = False
        self._inflater: zlib._Decompress | None = None

    def enabled(self) -> bool:
        return True

    def offer(self) -> bool | str:
        return False

    def frame_inbound_header(
        self, proto: FrameDecoder | FrameProtocol, opcode: Opcode, rsv: RsvBits, payload_length: int
    ) -> CloseReason | RsvBits:
        self._is_control = opcode.iscontrol()
        # RFC 7692 §6.1: only a message's first frame has the bit.
        if self._is_control or opcode is Opcode.CONTINUATION:
            return RsvBits(False, False, False)
        self._left, self._compressed = self._limit, 0
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS) if rsv.rsv1 else None
        return RsvBits(True, False, False)

    def frame_inbound_payload_data(
        self, proto: FrameDecoder | FrameProtocol, data: bytes
    ) -> bytes | CloseReason:
        if self._inflater is None or self._is_control:
            return data
        self._compressed += len(data)
        if self._compressed > self._limit:
            return CloseReason.MESSAGE_TOO_BIG
        return self._inflate(data)

    def frame_inbound_complete(
        self, proto: FrameDecoder | FrameProtocol, fin: bool
    ) -> bytes | CloseReason | None:
        if not fin or self._inflater is None or self._is_control:
            return None
        text = self._inflate(_SYNC_FLUSH)
        self._inflater = None
        return text

    def _inflate(self, data: bytes) -> bytes | CloseReason:
        assert self._inflater is not None
        try:
            text = self._inflater.decompress(data, self._left + 1)
        except zlib.error:
            return CloseReason.INVALID_FRAME_PAYLOAD_DATA
        self._left -= len(text)
        return text if self._left >= 0 else CloseReason.MESSAGE_TOO_BIG
