"""`quotestream.connect` at an address where something else answers, on trio and on asyncio."""

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from socket import IPPROTO_TCP, MSG_PEEK, TCP_NODELAY, create_server, socket

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

import quotestream
from server.reconnecting import CONNECT_TIMEOUT
from tests.client.libraries import EACH

REDIRECTION = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"

REFUSAL = b'{"error":{"code":"no_valid_symbols","message":"none of them exists"}}'

ANSWERS = {
    "redirect": (REDIRECTION, "http_302"),
    "refusal": (
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n%s" % (len(REFUSAL), REFUSAL),
        "no_valid_symbols",
    ),
    # As a proxy without a server: the end of the stream is the end of the body (RFC 9112 §6.3).
    "until the end": (b"HTTP/1.0 403 Forbidden\r\n\r\n<html>", "http_403"),
    "deep": (
        b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 60000\r\n\r\n%s" % (b"[" * 60_000),
        "http_401",
    ),
}


CUT = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 99\r\n\r\n{"
"""A response whose connection ends within the body."""


@contextmanager
def answering(answer: Callable[[socket], None], *, peek: bool = False) -> Iterator[str]:
    """Answer each connection once it has sent something, and close it. `peek`: let `answer` read it."""
    listener = create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536, MSG_PEEK if peek else 0)
                answer(connection)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield f"ws://127.0.0.1:{listener.getsockname()[1]}"
    listener.shutdown(2)
    listener.close()
    thread.join()


async def is_refused(reply: Callable[[socket], None]) -> None:
    """Connect to a server that answers by `reply` until a refusal is final."""
    with answering(reply) as url, pytest.raises(quotestream.Refused):
        async with quotestream.connect(url, symbols=["AAPL"]):
            raise AssertionError


@EACH
@pytest.mark.parametrize(("answer", "code"), ANSWERS.values(), ids=ANSWERS)
def test_refused_handshake_has_its_code(run, answer, code):
    """A final response raises Refused with the protocol's code, else with the status."""

    async def story() -> None:
        with (
            answering(lambda connection: connection.sendall(answer)) as url,
            pytest.raises(quotestream.Refused) as refused,
        ):
            async with quotestream.connect(url, token="x", symbols=["AAPL"]):
                raise AssertionError
        assert refused.value.code == code

    run(story)


@EACH
@pytest.mark.parametrize(
    "answer", [b"", b"SSH-2.0-x\r\n\r\n", CUT], ids=["nothing", "garbage", "cut"]
)
def test_what_is_not_a_server_is_tried_again(run, answer):
    """Garbage, and a connection that ends, do not end the client: a server may start there. The client
    notices at once.
    """
    tries: list[None] = []

    def reply(connection: socket) -> None:
        tries.append(None)
        # The third answer ends the story.
        connection.sendall(answer if len(tries) < 3 else REDIRECTION)

    run(partial(is_refused, reply), CONNECT_TIMEOUT)
    assert len(tries) == 3


@EACH
def test_refusal_that_is_cut_off_still_asks_for_time(run, caplog):
    """The body does not come to its end, but the head has said when to come back."""
    head = b"HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 99\r\n\r\n{"
    tries: list[float] = []

    def reply(connection: socket) -> None:
        tries.append(time.monotonic())
        connection.sendall(head if len(tries) == 1 else REDIRECTION)

    run(partial(is_refused, reply), CONNECT_TIMEOUT)
    assert 1.0 <= tries[1] - tries[0] < 2.0
    assert "HTTP status 503; the next attempt comes in 1.0 s" in caplog.text


@EACH
@pytest.mark.parametrize("piece", [b"x" * 65536, b"10000\r\n%s\r\n" % (b"x" * 65536)])
def test_endless_body_of_a_refusal_is_left(run, piece):
    """Its beginning is enough to know that the server refuses."""
    length = (
        b"Transfer-Encoding: chunked" if piece[0] == ord("1") else b"Content-Length: 9999999999"
    )

    def reply(connection: socket) -> None:
        connection.sendall(b"HTTP/1.1 401 No\r\n%s\r\n\r\n" % length)
        with suppress(OSError):
            while True:
                connection.sendall(piece)

    async def story() -> None:
        with answering(reply) as url, pytest.raises(quotestream.Refused, match="401"):
            async with quotestream.connect(url, symbols=["AAPL"]):
                raise AssertionError

    run(story, CONNECT_TIMEOUT)


@EACH
@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: x\r\n\r\n",
    ],
    ids=["another protocol", "wrong accept"],
)
def test_what_is_not_a_server_is_told_alike(run, caplog, answer):
    """trio and asyncio give the same reason."""
    tries: list[None] = []

    def reply(connection: socket) -> None:
        tries.append(None)
        connection.sendall(answer if len(tries) == 1 else REDIRECTION)

    run(partial(is_refused, reply), CONNECT_TIMEOUT)
    assert ": the server does not speak HTTP or WebSocket; the next" in caplog.text


@pytest.fixture
def self_signed(tmp_path) -> ssl.SSLContext:
    """A server's TLS with a certificate that no client trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(1))
    certificate = builder.sign(key, hashes.SHA256())
    path = tmp_path / "server.pem"
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + certificate.public_bytes(Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


@EACH
@pytest.mark.parametrize("secure", [True, False], ids=["untrusted", "without TLS"])
def test_failed_tls_says_why_at_once(run, caplog, self_signed, secure):
    """A certificate that is not trusted, or a server without TLS, is told long before a timeout."""

    def shake_hands(connection: socket) -> None:
        if secure:
            with suppress(OSError):
                self_signed.wrap_socket(connection.dup(), server_side=True).close()

    async def story() -> None:
        with answering(shake_hands, peek=True) as url:
            async with quotestream.connect(url.replace("ws:", "wss:"), symbols=["AAPL"]):
                raise AssertionError

    with pytest.raises((TimeoutError, trio.TooSlowError)):
        run(story, 3.0)
    first = caplog.records[0].message
    assert "cannot connect to 127.0.0.1" in first
    if secure:
        assert "CERTIFICATE_VERIFY_FAILED" in first


@EACH
@pytest.mark.parametrize("together", [True, False], ids=["one read", "two reads"])
def test_refusal_with_a_bad_chunk_still_asks_for_time(run, caplog, together):
    """A body that is not valid is cut off, too: the client comes back when the head says."""
    head = b"HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
    tries: list[float] = []

    def reply(connection: socket) -> None:
        tries.append(time.monotonic())
        if len(tries) > 1:
            connection.sendall(REDIRECTION)
            return
        connection.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        for part in [head + b"no chunk\r\n"] if together else [head, b"no chunk\r\n"]:
            connection.sendall(part)
        with suppress(OSError):
            connection.recv(1)

    async def story() -> None:
        with answering(reply) as url, pytest.raises(quotestream.Refused):
            async with quotestream.connect(url, symbols=["AAPL"]):
                raise AssertionError

    run(story, CONNECT_TIMEOUT)
    assert 1.0 <= tries[1] - tries[0] < 2.0
    assert "HTTP status 503; the next attempt comes in 1.0 s" in caplog.text
