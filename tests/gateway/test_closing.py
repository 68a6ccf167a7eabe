"""The ends of connections: their codes, the clients that are told, and that nothing is left behind."""

import json
import signal
import socket
import struct

import pytest
import trio
from trio_websocket import ConnectionClosed as TrioConnectionClosed
from trio_websocket import open_websocket_url
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.gateway.wire import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Client,
    RawClient,
    close,
    frame,
    new_user,
)
from tests.processes import STOP_TIMEOUT, TIMEOUT, ServerProcess, eventually, make_token
from tests.stopwatch import Stopwatch

MAX_MESSAGE = 16 * 1024

PING_COMMAND = b'{"action":"ping","id":1}'

VIOLATIONS = {
    "unmasked frame": frame(TEXT, PING_COMMAND, mask=False),
    "first reserved bit": frame(TEXT | 0x40, PING_COMMAND),
    "second reserved bit": frame(TEXT | 0x20, PING_COMMAND),
    "third reserved bit": frame(PING | 0x10),
    "unknown data opcode": frame(0x3, PING_COMMAND),
    "unknown control opcode": frame(0xB),
    "continuation of nothing": frame(CONTINUATION, PING_COMMAND),
    "text within a text": frame(TEXT, b"{", fin=False) + frame(TEXT, b"}"),
    "fragmented ping": frame(PING, fin=False),
    "ping of 126 bytes": frame(PING, b"x" * 126),
    "length longer than needed": b"\x81\xfe\x00\x05" + bytes(4) + b"hello",
    "length beyond 63 bits": b"\x81\xff\xff" + bytes(7),
    "close of one byte": frame(CLOSE, b"\x03"),
    "close code of nobody": close(1004),
    "close code that is never sent": close(1006),
    "close code out of range": close(5000),
}
"""RFC 6455 §5.1 to §5.5 and §7.4.1."""

NOT_UTF8 = {
    "stray byte": frame(TEXT, b'{"action":"\xff"}'),
    "surrogate": frame(TEXT, b'"\xed\xa0\x80"'),
    "overlong": frame(TEXT, b'"\xc0\xaf"'),
    "cut at the end": frame(TEXT, b'"\xf0\x9f\x98'),
    "split across fragments": frame(TEXT, b'"\xf0\x9f', fin=False) + frame(CONTINUATION, b'"'),
    "in a later fragment": frame(TEXT, b'"', fin=False) + frame(CONTINUATION, b"\xff", fin=False),
    "reason of a close": close(1000, b"\xff"),
}
"""RFC 3629 §3 and §10."""


def closed_with(server: ServerProcess, *sent: bytes) -> int | None:
    """Return the code of the close frame that answers `sent`, after which the connection ends."""
    with RawClient(server) as client:
        client.send(*sent)
        code = client.read_closing()
        client.socket.shutdown(socket.SHUT_WR)
        assert client.is_over()
        assert not client.received, "something follows the close frame"
    return code


@pytest.mark.parametrize("code", [1000, 1001, 3000, 3999, 4000, 4401, 4999])
def test_client_s_close_is_echoed(server, code):
    """The server echoes the code of a client's own close, and ends the connection."""
    with Client(server, "AAPL") as client:
        client.connection.close(code)
        received = client.connection.protocol.close_rcvd
        assert received is not None
        assert received.code == code
    with RawClient(server) as raw:
        raw.send(close(code, b"bye"))
        assert raw.read_closing() == code
        assert raw.is_over()


def test_empty_close_is_echoed(server):
    """A close frame without a code gets one without a code (RFC 6455 §5.5.1)."""
    with RawClient(server) as client:
        client.send(frame(CLOSE))
        assert client.read_frame() == (CLOSE, b"")
        assert client.is_over()


async def test_a_second_client_closes_cleanly(server):
    """trio-websocket's client sees its normal close completed."""
    with trio.fail_after(TIMEOUT):
        async with open_websocket_url(server.url("AAPL", make_token(new_user()))) as client:
            await client.get_message()
            await client.aclose(1000)
            with pytest.raises(TrioConnectionClosed) as closed:
                await client.get_message()
    assert closed.value.reason is not None
    assert closed.value.reason.code == 1000


@pytest.mark.parametrize("sent", VIOLATIONS.values(), ids=VIOLATIONS)
def test_protocol_error_is_1002(server, sent):
    """A violation of RFC 6455 fails the connection."""
    assert closed_with(server, sent) == 1002


@pytest.mark.parametrize("sent", [frame(BINARY, b"x"), frame(BINARY), frame(BINARY, fin=False)])
def test_binary_is_1003(server, sent):
    """Binary messages are refused at their first frame, empty or not."""
    assert closed_with(server, sent) == 1003


@pytest.mark.parametrize("sent", NOT_UTF8.values(), ids=NOT_UTF8)
def test_invalid_text_is_1007(server, sent):
    """Text that is not UTF-8 fails the connection, wherever its bytes are split."""
    assert closed_with(server, sent) == 1007


@pytest.mark.parametrize(
    "sent",
    [
        [frame(TEXT, b"x" * (MAX_MESSAGE + 1))],
        [frame(TEXT, b'"' + "é".encode() * (MAX_MESSAGE // 2) + b'"')],
        [frame(TEXT, b"x" * 70_000)],
        [struct.pack("!BBQ", 0x81, 0xFF, 2**62), bytes(4 + MAX_MESSAGE + 1)],
        [frame(TEXT, b"x" * 100, fin=False)] + [frame(CONTINUATION, b"x" * 100, fin=False)] * 200,
    ],
    ids=["one byte over", "two-byte characters", "far over", "endless", "in fragments"],
)
def test_message_over_16_kib_is_1009(server, sent):
    """Bytes are counted over all fragments, and before the message is complete."""
    assert closed_with(server, *sent) == 1009


def test_message_of_16_kib_is_read(server):
    """The largest message is read and answered, whole or in fragments, with any characters."""
    text = b'"' + "é".encode() * (MAX_MESSAGE // 2 - 1) + b"!"
    assert len(text) == MAX_MESSAGE
    with RawClient(server) as client:
        client.send(frame(TEXT, text))
        assert client.read_message()["code"] == "bad_json"
        for start in range(0, MAX_MESSAGE, 1001):
            opcode = CONTINUATION if start else TEXT
            fin = start + 1001 >= MAX_MESSAGE
            client.send(frame(opcode, text[start : start + 1001], fin=fin))
        assert client.read_message()["code"] == "bad_json"


def test_more_than_ten_bad_commands_in_a_row_are_1008(server):
    """Ten in a row are refused, a good one resets the count, and the eleventh closes the connection."""
    with RawClient(server) as client:
        for _ in range(2):
            client.send(frame(TEXT, b"bad") * 10, frame(TEXT, PING_COMMAND))
            answers = [client.read_message() for _ in range(11)]
            assert {answer["code"] for answer in answers[:10]} == {"bad_json"}
            assert answers[10]["type"] == "pong"
        client.send(frame(TEXT, b'{"action":"fly"}') * 12)
        for _ in range(11):
            assert client.read_message()["code"] == "bad_command"
        opcode, payload = client.read_frame()
        assert (opcode, payload[:2]) == (CLOSE, struct.pack("!H", 1008))


def test_sustained_flooding_is_1008(throttled):
    """Commands far beyond the rate are refused for a while, then the connection is closed."""
    with RawClient(throttled) as client:
        client.send(frame(TEXT, PING_COMMAND) * 1000)
        answers = []
        while (received := client.read_frame())[0] == TEXT:
            answers.append(json.loads(received[1]))
        assert received[0] == CLOSE
        assert received[1][:2] == struct.pack("!H", 1008)
    refused = [answer["code"] for answer in answers if answer["type"] == "error"]
    assert set(refused) == {"rate_limited"}
    assert 50 < len(refused) < 500


@pytest.mark.parametrize("payload", [b"", b"\x00\xff", b"x" * 125])
def test_ping_is_answered_with_its_payload(server, payload):
    """A ping frame gets a pong frame (RFC 6455 §5.5.3). A pong without a ping gets nothing."""
    with RawClient(server) as client:
        client.send(frame(PONG, b"unasked"), frame(PING, payload))
        assert client.read_frame() == (PONG, payload)


def test_fragmented_command_is_understood(server):
    """A command may come in pieces, cut anywhere, with pings between them."""
    command = '{"action":"ping","id":"é😀"}'.encode()
    pieces = [frame(CONTINUATION, command[i : i + 1], fin=False) for i in range(1, len(command))]
    with RawClient(server) as client:
        client.send(frame(TEXT, command[:1], fin=False), frame(PING, b"between"), *pieces)
        client.send(frame(CONTINUATION, b""))
        assert client.read_frame() == (PONG, b"between")
        assert client.read_message()["id"] == "é😀"
        for byte in frame(TEXT, PING_COMMAND):
            client.send(bytes([byte]))
        assert client.read_message()["id"] == 1


@pytest.mark.parametrize(
    ("label", "sent"),
    [
        ("1000", close(1000)),
        ("1005", frame(CLOSE)),
        ("1006", None),
        ("1002", frame(TEXT, mask=False)),
        ("1003", frame(BINARY)),
        ("1007", frame(TEXT, b"\xff")),
        ("1009", frame(TEXT, b"x" * (MAX_MESSAGE + 1))),
        ("1008", frame(TEXT, b"bad") * 11),
        ("other", close(3333)),
    ],
)
def test_closes_are_counted_by_code(server, label, sent):
    """Each close is counted once under its code. The clients' own codes share a label."""
    sample = f'market_data_connections_closed_total{{code="{label}"}}'
    before = server.metric(sample)
    with RawClient(server) as client:
        if sent is None:
            client.vanish()
        else:
            client.send(sent)
            client.read_closing()
    eventually(lambda: server.metric(sample) == before + 1)


def test_shutdown_tells_every_client_to_reconnect(tmp_path):
    """At SIGTERM each client gets `reconnect`, then 1001. Silent clients do not delay the end."""
    with ServerProcess(tmp_path) as server:
        with Client(server, "AAPL") as polite, Client(server, "*") as other, RawClient(server):
            watch = Stopwatch(server.process.pid)
            server.process.send_signal(signal.SIGTERM)
            for client in (polite, other):
                code, messages = client.read_to_end()
                assert code == 1001
                assert messages[-1].keys() == {"type", "after_ms"}
                assert messages[-1]["type"] == "reconnect"
                assert 0 <= messages[-1]["after_ms"] <= 60_000
            with pytest.raises((OSError, InvalidStatus)), connect(server.url()):
                pass
            assert watch.wait_for_end(server.process, STOP_TIMEOUT) == 0
        assert watch.seconds < 10
        assert server.log_lines()[-1]["event"] == "stopped"


def test_nothing_is_left_behind(server):
    """After all clients have left, in any way, no connection or subscription is counted."""
    with Client(server, "*"), Client(server, "AAPL,MSFT"):
        assert server.metric('market_data_connections{state="active"}') >= 2
        assert server.metric("market_data_subscriptions") > 500
        vanishing = RawClient(server)
        vanishing.send(frame(TEXT, b'{"action":"subscribe","symbols":["*"]}'))
        vanishing.read_message()
        vanishing.vanish()
    eventually(lambda: server.metric('market_data_connections{state="active"}') == 0)
    assert server.metric('market_data_connections{state="draining"}') == 0
    assert server.metric("market_data_subscriptions") == 0
