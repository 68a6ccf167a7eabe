"""permessage-deflate: its negotiation, the shared frames, and the limits of what comes in."""

import json
import struct
import tracemalloc
import zlib
from collections.abc import Iterator

import pytest
from wsproto.frame_protocol import CloseReason, FrameProtocol, ParseFailed

from server.fanout.frame import Source, UpdateFrame, deflate, text_frame
from server.gateway.deflate import ANSWER, Inflate, negotiate
from tests.gateway.wire import (
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Client,
    RawClient,
    frame,
    head,
    target,
)
from tests.processes import ServerProcess, eventually

FIN, RSV1 = 0x80, 0x40
OFFER = "permessage-deflate; client_max_window_bits"
TYPICAL_UPDATE_BYTES = 350
HEADER_BYTES = 4
"""Of a frame whose payload has 126 bytes or more; a shorter one's has two."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that compresses for clients that ask for it."""
    with ServerProcess(
        tmp_path_factory.mktemp("shared"), WS_COMPRESSION="shared", PRICE_UPDATE_INTERVAL="50ms"
    ) as process:
        yield process


def deflated(text: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return (compressor.compress(text) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


class Deflating(RawClient):
    """A raw client that negotiated compression."""

    def __init__(self, server: ServerProcess, symbols: str | None = None) -> None:
        super().__init__(server, head(target(symbols), Sec_WebSocket_Extensions=OFFER))
        assert f"sec-websocket-extensions: {ANSWER}" in self.read_head().lower()

    def read_deflated(self) -> tuple[int, dict[str, object]]:
        """Return the size on the wire and the content of the next message, which is compressed."""
        while (taken := self.take_frame())[0] == FIN | PING:
            pass
        first, payload = taken
        assert first == FIN | TEXT | RSV1
        message: dict[str, object] = json.loads(
            zlib.decompressobj(-15).decompress(payload + b"\x00\x00\xff\xff")
        )
        return len(payload) + HEADER_BYTES, message


@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        ("permessage-deflate", ANSWER),
        (OFFER, ANSWER),
        ("x-webkit-deflate-frame, permessage-deflate", ANSWER),
        ("permessage-deflate; server_max_window_bits=12", ANSWER + "; server_max_window_bits=12"),
        ("permessage-deflate; server_max_window_bits=9, permessage-deflate", ANSWER),
        ("permessage-deflate; server_max_window_bits=9", None),
        ("permessage-deflate; client_max_window_bits=16", None),
        (
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover;"
            " client_max_window_bits=15; server_max_window_bits=15",
            ANSWER + "; server_max_window_bits=15",
        ),
        ("permessage-deflate; client_no_context_takeover=1", None),
        ("permessage-deflate; server_no_context_takeover=1", None),
        ("permessage-deflate; unknown", None),
        ("permessage-deflate; client_max_window_bits; client_max_window_bits", None),
        ("", None),
        (";;,=,", None),
    ],
)
def test_offers_are_answered_as_rfc_7692_says(offer, answer):
    """The first acceptable offer is accepted. Unknown or out-of-range ones never are."""
    assert negotiate(offer) == answer


def test_frame_is_compressed_once():
    """All clients that negotiated it get the same bytes, with the content of the plain ones."""

    class Nothing(Source):
        def current_frame(self, view: object) -> UpdateFrame:
            return UpdateFrame(b"", self)

    update = UpdateFrame(text_frame(b'{"a":1}' * 40), Nothing())
    assert update.deflated is update.deflated
    assert update.deflated.deflated is update.deflated
    assert update.deflated == deflate(update)
    assert len(update.deflated) < len(update) / 4


def test_independent_client_understands_it(shared):
    """websockets' client negotiates by itself. Documents and versions are right in both ways."""
    with Client(shared, "*", compression="deflate") as client, Client(shared, "AAPL") as plain:
        extensions = client.connection.protocol.extensions
        assert [extension.name for extension in extensions] == ["permessage-deflate"]
        assert client.is_answered()
        assert len(client.quotes) > 500
        plain.receive()
        first = plain.versions["AAPL"]
        while client.versions["AAPL"] < first + 10:
            client.receive()
        while plain.versions["AAPL"] < first + 10:
            plain.receive()
        assert client.ask("subscribe", symbols=["NOPE"])["code"] == "unknown_symbol"


def test_updates_are_small_on_the_wire(shared):
    """A typical update of one symbol is below its target, and far smaller compressed than plain."""
    with Deflating(shared, "AAPL") as client:
        sizes: list[int] = []
        while len(sizes) < 20:
            size, message = client.read_deflated()
            if "add" not in json.dumps(message["operations"]):
                sizes.append(size)
    assert max(sizes) < TYPICAL_UPDATE_BYTES


def test_not_offered_is_not_used(shared, server):
    """A client that does not offer compression does not get it, and none does while it is off."""
    with RawClient(shared, head(target("AAPL"))) as client:
        assert "extensions" not in client.read_head().lower()
        assert client.read_message()["type"] == "quotes_patch"
    with RawClient(server, head(target(), Sec_WebSocket_Extensions=OFFER)) as client:
        assert "extensions" not in client.read_head().lower()
        client.send(frame(TEXT | RSV1, deflated(b'{"action":"ping"}')))
        assert client.read_closing() == 1002


def test_compressed_commands_are_read(shared):
    """Compressed messages may come whole or in fragments, with a ping between them."""
    command = deflated(b'{"action":"ping","id":1}')
    with Deflating(shared) as client:
        for _ in range(2):
            client.send(frame(TEXT | RSV1, command))
            assert client.read_message()["id"] == 1
        client.send(frame(TEXT | RSV1, command[:5], fin=False), frame(PING, b"x"))
        client.send(frame(CONTINUATION, command[5:]))
        assert client.read_frame() == (PONG, b"x")
        assert client.read_message()["id"] == 1
        client.send(frame(TEXT, b'{"action":"ping","id":2}'))
        assert client.read_message()["id"] == 2


def test_bomb_is_1009(shared):
    """A message of gigabytes is refused at 16 KiB, in one frame or many, and takes no memory."""
    before = shared.metric("process_resident_memory_bytes")
    bomb = deflated(b"0" * 64_000_000)
    for _ in range(20):
        with Deflating(shared) as client:
            client.send(frame(TEXT | RSV1, bomb[:30_000]))
            assert client.read_closing() == 1009
    with Deflating(shared) as client:
        client.send(frame(TEXT | RSV1, bomb[:10], fin=False))
        client.send(*(frame(CONTINUATION, bomb[n : n + 10], fin=False) for n in range(10, 400, 10)))
        assert client.read_closing() == 1009
    eventually(lambda: shared.metric("process_resident_memory_bytes") < before + 20e6)


def test_bomb_is_not_even_inflated():
    """Of sixty-four megabytes given at once, no more than the limit is inflated."""
    inflate = Inflate(limit=16_384)
    bomb = deflated(b"0" * 64_000_000)
    decoder = FrameProtocol(client=False, extensions=[inflate])
    tracemalloc.start()
    decoder.receive_bytes(frame(TEXT | RSV1, bomb))
    with pytest.raises(ParseFailed) as failure:
        list(decoder.received_frames())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert failure.value.code is CloseReason.MESSAGE_TOO_BIG
    assert peak < 10 * len(bomb)


@pytest.mark.parametrize(
    "first", [b"", zlib.compress(b"{", wbits=-15)], ids=["empty blocks", "behind the last"]
)
def test_message_that_is_never_text_is_1009(shared, first):
    """Blocks that make no text count as well."""
    with Deflating(shared) as client:
        client.send(struct.pack("!BBQ", 0xC1, 0xFF, 2**62), bytes(4), first)
        for _ in range(17):
            client.send(b"\x00\x00\x00\xff\xff" * 205)
        assert client.read_closing() == 1009


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(TEXT | RSV1, b"\xff\xff\xff\xff"), 1007),
        (frame(TEXT | RSV1, deflated(b"\xff\xfe")), 1007),
        (frame(PING | RSV1), 1002),
        (frame(TEXT, b"{", fin=False) + frame(CONTINUATION | RSV1, b"}"), 1002),
        (frame(TEXT | 0x20, b"{}"), 1002),
    ],
    ids=["not deflate", "not UTF-8", "compressed ping", "bit in a continuation", "other bit"],
)
def test_wrong_compression_fails_the_connection(shared, sent, code):
    """Wrong compression is refused as RFC 7692 §6 and RFC 6455 say."""
    with Deflating(shared) as client:
        client.send(sent)
        assert client.read_closing() == code
