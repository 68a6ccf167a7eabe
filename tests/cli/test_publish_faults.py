"""`quotestream publish` through a proxy that cuts it off, and to servers that refuse for now."""

import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

import pytest
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from tests.cli.command import COMMAND, environment
from tests.faults.proxy import Proxy
from tests.processes import TIMEOUT, ServerProcess, eventually
from tests.publisher import publisher_token

SYMBOLS = ("AAPL", "MSFT", "IBM")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """Start a server that has taken nothing yet."""
    with ServerProcess(tmp_path, FEED="push") as process:
        yield process


@contextmanager
def publishing_pipe(folder: Path, port: int) -> Iterator["subprocess.Popen[str]"]:
    """Start the command with a pipe."""
    with subprocess.Popen(
        [*COMMAND, "publish", "--url", f"ws://127.0.0.1:{port}/ws/prices"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        env=environment(QUOTESTREAM_TOKEN=publisher_token()),
        text=True,
    ) as command:
        try:
            yield command
        finally:
            command.kill()


def write(command: "subprocess.Popen[str]", first: int, stop: int) -> None:
    """Write trades without numbers, of several symbols in turn."""
    assert command.stdin
    for number in range(first, stop):
        symbol = SYMBOLS[number % 3]
        command.stdin.write(f'{{"symbol":"{symbol}","price":90,"size":1}}\n')
    command.stdin.flush()


def volume(server: ServerProcess) -> int:
    """Return the sum of the volumes."""
    _, found = server.ask(f"/quotes?symbols={','.join(SYMBOLS)}")
    return sum(int(each["quote"]["volume"]) for each in found)


def test_lost_answers_are_asked_for_again(tmp_path, server):
    """The connection breaks after the server counted far more than SEQ_WINDOW objects, and before their
    answer comes. They come again, and each counts once and is called a duplicate.
    """
    with Proxy(server.address[1]) as proxy, publishing_pipe(tmp_path, proxy.port) as command:
        write(command, 0, 1)
        eventually(lambda: volume(server) == 1)
        proxy.mute_oldest()
        write(command, 1, 40)
        eventually(lambda: volume(server) == 40)
        # The command reads only as much as it may send.
        writer = threading.Thread(target=write, args=(command, 40, 20_000))
        writer.start()
        eventually(lambda: volume(server) >= 3_000)
        counted = 0
        while counted < volume(server):
            counted = volume(server)
        proxy.cut()
        writer.join()
        output, _ = command.communicate(timeout=3 * TIMEOUT)
    assert volume(server) == 20_000
    assert output.endswith("0 late, 0 held, 0 rejected\n")
    assert command.returncode == 0


class Refusing:
    """A stand-in server. `script` says what it does with each frame that comes; then it takes all.

    `ack` takes a frame, `refuse` has no answer of the store about every second object, and `drop`
    ends the connection without an answer. Numbers are HTTP statuses of the next handshakes, or codes of
    a close.
    """

    def __init__(self, *script: str | int) -> None:
        self.script = [*script]
        self.counted: list[str] = []
        self.seen: list[str] = []

    def on_request(self, connection: ServerConnection, _: Request) -> Response | None:
        """Refuse a handshake if the script says so."""
        if self.script and isinstance(self.script[0], int) and self.script[0] < 1000:
            status = self.script.pop(0)
            assert isinstance(status, int)
            answer = connection.respond(HTTPStatus(status), "later\n")
            answer.headers["Retry-After"] = "0"
            return answer
        return None

    def serve(self, connection: ServerConnection) -> None:
        """Answer the frames of one connection."""
        accepted = 0
        for number, text in enumerate(connection, 1):
            objects = [json.dumps(each) for each in json.loads(text)]
            self.seen += objects
            step = self.script.pop(0) if self.script else "ack"
            if step == "drop":
                # The server has counted the frame, and its answer is lost.
                self.counted += [each for each in objects if each not in self.counted]
                connection.socket.shutdown(socket.SHUT_RDWR)
                return
            if isinstance(step, int):
                connection.close(step, "")
                return
            refused = range(1, len(objects), 2) if step == "refuse" else range(0)
            taken = [each for place, each in enumerate(objects) if place not in refused]
            accepted += len(taken)
            self.counted += [each for each in taken if each not in self.counted]
            rejected = [
                {"frame": number, "line": place + 1, "code": "store_unavailable", "message": ""}
                for place in refused
            ]
            counts = {"accepted": accepted, "duplicate": 0, "late": 0, "held": 0}
            answer = {"type": "ack", "frames": number, "rejected": rejected, **counts}
            connection.send(json.dumps(answer))


@pytest.mark.parametrize(
    "script",
    [
        ["refuse"],
        ["refuse", "refuse", "ack", "refuse", "ack"],
        ["drop", "refuse", "ack", 1001],
        [429, "drop", 503],
        ["refuse", 1012, 1011],
        ["ack", "refuse", "drop", "refuse"],
    ],
)
def test_everything_is_sent_until_it_counts(tmp_path, script):
    """Whatever a server refuses for now, or does not answer, comes again as it was: with the same
    numbers. Nothing else comes again, and the command ends well.
    """
    refusing = Refusing(*script)
    with serve(refusing.serve, "127.0.0.1", 0, process_request=refusing.on_request) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with publishing_pipe(tmp_path, server.socket.getsockname()[1]) as command:
            for first in range(0, 60, 10):
                write(command, first, first + 10)
                eventually(lambda: len({*refusing.seen}) == first + 10)  # noqa: B023 (called here)
            output, errors = command.communicate(timeout=TIMEOUT)
        server.shutdown()
        thread.join()
    assert (command.returncode, refusing.script) == (0, []), errors
    assert sorted(json.loads(each)["seq"] for each in refusing.counted) == [*range(1, 61)]
    assert set(refusing.seen) == set(refusing.counted)
    assert output.endswith("0 rejected\n")
