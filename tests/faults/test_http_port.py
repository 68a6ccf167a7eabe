"""The HTTP port under attack: no packet ends the server or starves the clients that stream.

Every test attacks a real server while clients in another process stream and ping. `Siege.attack`
checks that no client is cut, misses a version or waits, and that memory and descriptors return.
"""

import select
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

import pytest

from tests.faults import http2_attacks
from tests.faults.http_attacks import (
    ANSWERED,
    BAD_CHUNKS,
    BAD_HEADS,
    BAD_LENGTHS,
    BAD_VERSIONS,
    BODY,
    CLIENT_FRAME,
    MALFORMED,
    NEXT,
    OK,
    SILENCE,
    SMUGGLED,
    TOO_LARGE,
    TOO_MUCH,
    UPGRADES,
    WRONG_METHOD,
    WRONG_VERSION,
    Case,
    get,
    post,
)
from tests.faults.siege import HEALTH_TIME, Footprint, Siege, besiege
from tests.gateway.wire import Client, RawClient
from tests.http_wire import BadAnswer, Exchange, exchange, request, reset, wait
from tests.processes import TIMEOUT, ServerProcess, eventually
from tests.stopwatch import Stopwatch

END_TIME = 5.0
"""Seconds in which the server ends a connection that its client has spoiled."""

SLOW_END_TIME = 40.0
"""Seconds in which the server ends all connections whose clients make no progress. The longest
limit of the port is an idle connection's 15 s; a busy machine gets twice that.
"""

CHUNK_TRIES = 200
"""Tries: one malformed chunk ended an old server within this many, when it met an unfinished answer."""

CROWD, PIPELINED = 50, 900
"""Clients, and requests that each sends at once."""

READING_TIME = 3.0
"""Seconds in which clients read their answers before they leave."""

WAVES, WAVE, HALF_HEAD = 20, 150, 120 * 1024
"""Waves; clients of each; bytes of the head that each begins, below the limit. If the server kept
the heads of one wave, they would take 18 MB.
"""

FILES, MAX_CONNECTIONS, IDLE, STREAMING = 256, 50, 1000, 20
"""A small server's descriptors, the cap of its HTTP port, clients that do nothing there, and
clients that stream.
"""


@pytest.fixture(scope="module")
def sieges(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Siege]]:
    """Return the siege that all tests share, or a new one once a test has broken it."""
    with ExitStack() as stack:
        current: list[Siege] = []

        def give() -> Siege:
            if not current or current[-1].is_broken:
                stack.close()
                current.append(stack.enter_context(besiege(tmp_path_factory.mktemp("siege"))))
            return current[-1]

        yield give


@pytest.fixture
def siege(sieges: Callable[[], Siege]) -> Siege:
    """Start a server with clients that stream."""
    return sieges()


@contextmanager
def connections(siege: Siege, count: int, data: bytes) -> Iterator[list[socket.socket]]:
    """Connect clients that have sent as much of `data` as the server took at once. They close in
    the end.
    """
    socks: list[socket.socket] = []
    try:
        for _ in range(count):
            socks.append(socket.create_connection(siege.address, END_TIME))
            socks[-1].setblocking(False)
            send_some(socks[-1], data)
        yield socks
    finally:
        for sock in socks:
            sock.close()


def send_some(sock: socket.socket, data: bytes) -> None:
    """Send what the kernel takes, if the server is still there."""
    with suppress(OSError):
        sock.send(data)


def read_some(sock: socket.socket, size: int) -> bytes:
    """Return what has come; b"" if nothing has or the server has ended the connection."""
    with suppress(OSError):
        return sock.recv(size)
    return b""


def refuse(case: Case, asked: Exchange) -> str:
    """Return what is wrong with a refusal: it is one documented answer, then the end."""
    try:
        answers = asked.answers()
        verdicts = [answer.verdict for answer in answers] or [SILENCE]
    except BadAnswer as error:
        return str(error)
    if len(verdicts) != 1 or verdicts[0] not in case.expected:
        return f"answered {verdicts}"
    if not asked.ended:
        return "the connection goes on"
    if answers and not answers[0].is_last:
        return f"the answer does not say that it is the last: {answers[0]}"
    return ""


def accept(case: Case, asked: Exchange) -> str:
    """Return what is wrong with the answer to a request before a good one.

    The good request's answer may be missing only if the first says that the connection ends.
    """
    try:
        answers = asked.answers()
        verdicts = [answer.verdict for answer in answers]
    except BadAnswer as error:
        return str(error)
    if not verdicts or verdicts[0] not in case.expected:
        return f"answered {verdicts}"
    if verdicts[1:] == [OK] or (len(verdicts) == 1 and answers[0].is_last):
        return "" if asked.ended else "the connection goes on"
    if CLIENT_FRAME in case.data and verdicts[1:] in ([], [MALFORMED]):
        return ""
    return f"answered {verdicts}"


def wrong_answers(
    siege: Siege, cases: Sequence[Case], judge: Callable[[Case, Exchange], str], then: bytes = b""
) -> dict[str, str]:
    """Return what is wrong, by case, until the server has ended."""
    wrong: dict[str, str] = {}
    for case in cases:
        try:
            asked = exchange(siege.address, case.data + then, timeout=END_TIME)
        except ConnectionRefusedError:
            return wrong | {case.name: "the server is gone"}
        if problem := judge(case, asked):
            wrong[case.name] = problem
    return wrong


def test_bad_requests_are_refused(siege):
    """Requests that are malformed or too large get the documented error, and their connections end."""
    with siege.attack():
        wrong = wrong_answers(
            siege, [*BAD_HEADS, *BAD_VERSIONS, *BAD_LENGTHS, *TOO_MUCH * 3], refuse
        )
    assert wrong == {}


def test_unusual_requests_are_answered(siege):
    """The port understands what RFC 9110 and 9112 allow. It ignores an offer of h2c, and answers
    one of WebSocket with 404. The connection then goes on, or the answer says that it ends.
    """
    then = request(Connection="close")
    with siege.attack():
        wrong = wrong_answers(siege, [*ANSWERED, *UPGRADES * 3], accept, then)
    assert wrong == {}


def test_no_request_is_smuggled(siege):
    """Bytes behind an ambiguous request, or behind a malformed chunk (200 tries), are not a request."""
    bodies = BAD_CHUNKS * (CHUNK_TRIES // len(BAD_CHUNKS) + 1)
    expected = (MALFORMED, WRONG_METHOD, TOO_LARGE)
    chunked = b"Transfer-Encoding: chunked"
    cases = [Case(repr(body[:40]), post(chunked, body=body + NEXT), expected) for body in bodies]
    with siege.attack():
        wrong = wrong_answers(siege, [*SMUGGLED, *cases], refuse)
    assert wrong == {}


def test_http2_is_not_spoken(siege, tmp_path):
    """Floods, leaks and spoiled frames get one refusal, also if the client goes on sending or stays."""
    cases = [Case(name, data, (WRONG_VERSION,)) for name, data in http2_attacks.ATTACKS.items()]
    body = tmp_path / "body"
    body.write_bytes(bytes(BODY))
    with siege.attack():
        wrong = wrong_answers(siege, cases * 3, refuse)
        with connections(siege, 20, http2_attacks.ATTACKS["window 0"]) as socks:
            eventually(lambda: has_ended(socks), timeout=END_TIME)
        if curl := shutil.which("curl"):
            for protocol in ("--http2-prior-knowledge", "--http2", "--http1.1"):
                subprocess.run(
                    [curl, "-s", protocol, "-d", f"@{body}", f"{siege.server.http_url}/healthz"],
                    capture_output=True,
                    timeout=END_TIME,
                    check=False,
                )
    assert wrong == {}


def has_ended(socks: Sequence[socket.socket]) -> bool:
    """Return whether the server has ended all these connections; the clients read now."""
    for sock in socks:
        try:
            while sock.recv(1 << 20):
                pass
        except BlockingIOError:
            return False
        except OSError:
            pass
    return True


def leave(socks: Sequence[socket.socket]) -> None:
    """Close at once."""
    for sock in socks:
        sock.close()


def vanish(socks: Sequence[socket.socket]) -> None:
    """Reset at once."""
    for sock in socks:
        reset(sock)


def read(socks: Sequence[socket.socket]) -> None:
    """Read for READING_TIME."""
    deadline = time.monotonic() + READING_TIME
    received = dict.fromkeys(socks, b"")
    while (left := deadline - time.monotonic()) > 0 and received:
        ready, _, _ = select.select(list(received), [], [], left)
        for sock in ready:
            part = read_some(sock, 1 << 20)
            received[sock] += part
            if not part:
                assert Exchange(received.pop(sock), True, 0.0).answers()[-1].is_last
    for data in received.values():
        assert {answer.verdict for answer in Exchange(data, False, 0.0).answers()} <= {OK}


@pytest.mark.parametrize("behave", [leave, vanish, read])
def test_pipelining_crowd_starves_nobody(siege, behave):
    """Fifty clients send 900 requests each at once. The server makes no answer that its client does
    not read.
    """
    with siege.attack(), connections(siege, CROWD, request() * PIPELINED) as socks:
        behave(socks)
        watch = Stopwatch(siege.server.process.pid)
        health = exchange(siege.address, request(Connection="close"), timeout=TIMEOUT)
        assert [answer.verdict for answer in health.answers()] == [OK]
        assert watch.seconds < HEALTH_TIME


class Slow:
    """One kind of client: what it sends first and then bit by bit, and whether it reads bit by bit."""

    def __init__(self, first: bytes, drip: bytes = b"", *, reads: int = 0) -> None:
        self.first, self.drip, self.reads = first, drip, reads


SLOW = [
    Slow(b""),
    Slow(request()[:20]),
    Slow(http2_attacks.PREFACE[:10]),
    Slow(b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: ", b"y"),
    Slow(b"GET /healthz HTTP/1.1\r\nHost: a\r\n", b"X: y\r\n"),
    Slow(b"", b"\r\n"),
    Slow(post(b"Content-Length: 100000"), b"x"),
    Slow(post(b"Transfer-Encoding: chunked"), b"1\r\nx\r\n"),
    Slow(post(b"Transfer-Encoding: chunked", body=b"1;"), b"a=b;"),
    Slow(post(b"Transfer-Encoding: chunked", body=b"0\r\n"), b"X: y\r\n"),
    Slow(post(b"Transfer-Encoding: chunked", body=b"f" * 17 + b"\r\n")),
    Slow(request("/metrics") * PIPELINED),
    Slow(request("/metrics") * PIPELINED, reads=1),
    Slow(request("/metrics"), request("/metrics")),
]

SLOW_CLIENTS, DRIP_INTERVAL, RECEIVE_BUFFER = 8, 0.25, 2048
"""Clients of each kind; seconds between two bits; bytes that a client's kernel takes."""


def test_slow_clients_are_ended(siege):
    """Heads, bodies and answers that go byte by byte, or not at all, hold a connection for some
    seconds only. They cost no memory and no other client's time.
    """
    pid = siege.server.process.pid
    clients: list[tuple[Slow, socket.socket]] = []
    with siege.attack():
        before = Footprint.of(pid)
        try:
            for kind in SLOW * SLOW_CLIENTS:
                sock = socket.socket()
                clients.append((kind, sock))
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
                sock.connect(siege.address)
                sock.setblocking(False)
                send_some(sock, kind.first)
            deadline = time.monotonic() + SLOW_END_TIME
            while not Footprint.of(pid).is_back(before):
                assert time.monotonic() < deadline, f"{Footprint.of(pid)}, {before} before"
                for kind, sock in clients:
                    send_some(sock, kind.drip)
                    read_some(sock, kind.reads)
                time.sleep(DRIP_INTERVAL)
        finally:
            for _, sock in clients:
                sock.close()


def test_half_requests_leave_no_memory(siege):
    """The server frees half requests when their clients leave."""
    data = get(b"Host: a", b"X: " + b"y" * HALF_HEAD).removesuffix(b"\r\n\r\n")
    with siege.attack():
        for _ in range(WAVES):
            with connections(siege, WAVE, data):  # the server takes them in before who comes later
                exchange(siege.address, request(Connection="close"))


def test_idle_connections_make_room(tmp_path):
    """A thousand idle clients, far beyond the cap, keep no other client from /healthz. They take no
    descriptor from clients that stream.
    """
    server = ServerProcess(tmp_path, HTTP_MAX_CONNECTIONS=str(MAX_CONNECTIONS))
    server.launcher = ["prlimit", f"--nofile={FILES}:{FILES}"]
    beginnings = [b"", request()[:20], request()]
    with server, Client(server, "AAPL") as witness, ExitStack() as stack:
        before = Footprint.of(server.process.pid)
        for number in range(IDLE):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            with suppress(BlockingIOError):
                sock.connect(server.http_address)
            wait(sock, select.POLLOUT, 0.01)
            send_some(sock, beginnings[number % len(beginnings)])
        watch = Stopwatch(server.process.pid)
        asked = exchange(server.http_address, request(Connection="close"))
        assert [answer.verdict for answer in asked.answers()] == [OK]
        assert watch.seconds < HEALTH_TIME
        held = Footprint.of(server.process.pid).descriptors - before.descriptors
        assert held <= MAX_CONNECTIONS + 5
        for _ in range(STREAMING):
            stack.enter_context(RawClient(server))
        assert witness.is_answered()
