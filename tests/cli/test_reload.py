"""SIGHUP: the server takes over keys and log level, cuts no connection, and ignores faulty settings."""

import signal
import threading
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.gateway.wire import Client, new_user, refusal
from tests.processes import SECRET, START_TIMEOUT, STOP_TIMEOUT, ServerProcess, eventually
from tests.workers.host import Host, is_alive

OTHER_SECRET = "another secret of the tests, also 32 bytes or longer"


def token(key: Any, algorithm: str = "HS256") -> str:
    return jwt.encode({"sub": new_user(), "exp": time.time() + 600}, key, algorithm)


def publish(key: RSAPrivateKey, file: Path) -> None:
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    file.write_bytes(pem)


def hang_up(server: ServerProcess, event: str) -> dict[str, Any]:
    """Send SIGHUP. Return the log line `event` that follows."""
    before = len(events(server, event))
    server.process.send_signal(signal.SIGHUP)
    eventually(lambda: len(events(server, event)) > before)
    return events(server, event)[-1]


def events(server: ServerProcess, event: str) -> list[dict[str, Any]]:
    return [line for line in server.log_lines() if line["event"] == event]


class ByFile(ServerProcess):
    """A server with secret and log level in its `.env` file, which `write` changes."""

    def __init__(self, folder: Path, **written: str) -> None:
        super().__init__(folder, PRICE_UPDATE_INTERVAL="100ms")
        self._variables.pop("JWT_SECRET")
        self.variables = {"JWT_SECRET": SECRET}
        self.write(**written)

    def write(self, **variables: str) -> None:
        self.variables |= variables
        lines = [f"{name}={value}\n" for name, value in self.variables.items()]
        (self._folder / ".env").write_text("".join(lines))


def test_secret_is_replaced_and_clients_stay(tmp_path):
    """New tokens are accepted, old ones are refused, and connections go on."""
    with ByFile(tmp_path) as server, Client(server, "AAPL") as client:
        client.receive()
        server.write(JWT_SECRET=OTHER_SECRET)
        assert hang_up(server, "reloaded")["variables"] == ["JWT_SECRET"]
        with Client(server, "AAPL", token=token(OTHER_SECRET)) as newcomer:
            newcomer.receive()
        assert refusal(server.url("AAPL", token(SECRET))).verdict == (401, "unauthorized")
        asked = server.request(
            "GET", "/quotes?symbols=AAPL", Authorization=f"Bearer {token(OTHER_SECRET)}"
        )
        assert asked[0] == 200
        client.move()
        assert server.stop() == 0
        assert OTHER_SECRET not in server.log.read_text()


def test_public_key_in_a_file_is_read_again(tmp_path):
    """The key is taken over although the variable names the same file as before."""
    file = tmp_path / "key.pem"
    old, new = (generate_private_key(65537, 2048) for _ in range(2))
    publish(old, file)
    with ServerProcess(tmp_path, JWT_PUBLIC_KEY=str(file)) as server:
        assert hang_up(server, "nothing to reload")["level"] == "info"
        with Client(server, "AAPL", token=token(old, "RS256")) as client:
            client.receive()
            publish(new, file)
            assert hang_up(server, "reloaded")["variables"] == ["JWT_PUBLIC_KEY"]
            with Client(server, "AAPL", token=token(new, "RS256")) as newcomer:
                newcomer.receive()
            assert refusal(server.url("AAPL", token(old, "RS256"))).status == 401
            file.write_text("no key")
            line = hang_up(server, "nothing was reloaded, the old settings stay")
            assert line["level"] == "error"
            assert "JWT_PUBLIC_KEY" in line["problem"]
            with Client(server, "AAPL", token=token(new, "RS256")) as newcomer:
                newcomer.receive()
            assert client.is_answered()


@pytest.mark.parametrize(
    ("variables", "word"),
    [
        ({"LOG_LEVEL": "loud"}, "LOG_LEVEL"),
        ({"WS_MAX_SYMBOLS": "many"}, "WS_MAX_SYMBOLS"),
        ({"JWT_ALGORITHMS": "RS256"}, "JWT_ALGORITHMS"),
        ({"JWT_SECRET": ""}, "JWT_SECRET"),
        ({"what is this\nX": "y"}, ".env"),
    ],
)
def test_what_is_wrong_changes_nothing(tmp_path, variables, word):
    """One error line names the fault. The old keys stay even if only one new setting is wrong."""
    with ByFile(tmp_path) as server, Client(server, "AAPL") as client:
        server.write(**({"JWT_SECRET": OTHER_SECRET} | variables))
        line = hang_up(server, "nothing was reloaded, the old settings stay")
        assert word in line["problem"]
        with Client(server, "AAPL", token=token(SECRET)) as newcomer:
            newcomer.receive()
        assert client.is_answered()
        assert len([each for each in server.log_lines() if each["level"] == "error"]) == 1


def test_log_level_is_reloaded_and_the_rest_asks_for_a_restart(tmp_path):
    """Changed settings that need a restart are named. Without a change one line says so."""
    with ByFile(tmp_path, LOG_LEVEL="error") as server:
        server.write(LOG_LEVEL="info")
        assert hang_up(server, "reloaded")["variables"] == ["LOG_LEVEL"]
        assert hang_up(server, "nothing to reload")["level"] == "info"
        server.write(WS_MAX_SYMBOLS="7")
        line = hang_up(server, "a restart is needed for these settings")
        assert line["variables"] == ["WS_MAX_SYMBOLS"]
        server.write(WS_MAX_SYMBOLS="500")
        hang_up(server, "nothing to reload")
        assert server.stop() == 0
        assert [line["event"] for line in server.own_lines()][-2:] == ["stopping", "stopped"]


def test_worker_that_is_hung_up_on_survives(tmp_path, redis):
    """A closing terminal sends it to all processes; the supervisor rolls."""
    with Host(tmp_path, redis, 1) as host:
        pid = host.pid(1)
        with Client(host, "AAPL") as client:
            client.receive()
            host.kill(1, signal.SIGHUP)
            host.await_event("nothing to reload", worker=1)
            assert client.is_answered()
        assert is_alive(pid)
        assert not host.events("rolling")
        assert not host.events("worker ended")


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGPIPE, signal.SIGTTOU, signal.SIGHUP])
def test_signal_without_a_meaning_ends_nothing(tmp_path, number):
    """Clients stay, and a later stop is clean."""
    with ServerProcess(tmp_path, PRICE_UPDATE_INTERVAL="50ms") as server:
        with Client(server, "AAPL") as client:
            client.receive()
            for _ in range(20):
                server.process.send_signal(number)
            client.move()
            assert client.is_answered()
        assert server.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_signal_during_the_start_ends_nothing(tmp_path, number):
    """The server acts on it once it serves."""
    server = ServerProcess(tmp_path)
    stopped = threading.Event()

    def pester() -> None:
        while not stopped.is_set():
            process = getattr(server, "process", None)
            if process is not None and _blocks(process.pid, number):
                process.send_signal(number)
            time.sleep(0.01)

    thread = threading.Thread(target=pester)
    thread.start()
    try:
        with server:
            stopped.set()
            event = "nothing to reload" if number == signal.SIGHUP else "nothing to hand over"
            eventually(lambda: event in server.log.read_text(), START_TIMEOUT)
            assert server.get("/readyz")[0] == 200
            assert server.stop() == 0
    finally:
        stopped.set()
        thread.join(STOP_TIMEOUT)


def _blocks(pid: int, number: int) -> bool:
    """Return whether the process already handles the signal."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, mask = line.partition(":\t")
        if name in ("SigBlk", "SigCgt") and int(mask, 16) >> (number - 1) & 1:
            return True
    return False
