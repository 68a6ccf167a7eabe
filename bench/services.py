"""Private Postgres and Redis servers on unix sockets and free ports; also what the tests break."""

import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

POSTGRES_FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
"""Where Debian puts Postgres, the newest first; elsewhere PATH is looked at."""

START_TIMEOUT = 20.0


class MissingService(Exception):
    """A server's program is not installed; the message says which package has it."""


KEPT_PORTS = range(20_000, 32_000)
"""Below those that Linux gives to clients: none of them can take a server's before it is back."""


def free_port() -> int:
    """Return a port of this machine that nobody listens on, and keep it for this process.

    Another process that calls this gets other ports, also while a server of this one is down.
    """
    while True:
        port = random.choice(KEPT_PORTS)
        # A name without a file (unix(7), "abstract"): the kernel frees it when the process ends.
        mark = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            mark.bind(f"\0quotestream-port-{port}")
            with socket.create_server(("127.0.0.1", port)):
                mark.detach()
                return port
        except OSError:
            mark.close()


class Service(ABC):
    """One server process. `port` stays the same over restarts."""

    package = ""

    def __init__(self) -> None:
        # Not below pytest's own folders: those are closed to the user that Postgres runs as.
        self.folder = Path(tempfile.mkdtemp(prefix="quotestream-"))
        self.folder.chmod(0o755)
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start, or start anew; returns when it answers."""
        with (self.folder / "log").open("ab") as log:
            self._process = self.launch(log.fileno())
        deadline = time.monotonic() + START_TIMEOUT
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.package}: {(self.folder / 'log').read_text()}")
            time.sleep(0.02)

    @abstractmethod
    def launch(self, log: int) -> subprocess.Popen[bytes]:
        """Start the process with its output to `log`."""

    def answers(self) -> bool:
        """Whether it can be connected to."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 0.2):
                return True
        except OSError:
            return False

    def kill(self) -> None:
        """SIGKILL it, with every process it started."""
        if self._process is not None:
            with suppress(ProcessLookupError):  # it has ended by itself
                self.signal(signal.SIGCONT)
                self.signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """SIGSTOP: connections stay, the kernel takes what is sent, nothing answers."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """The opposite of `freeze`."""
        self.signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process and all it started."""
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def close(self) -> None:
        """End it and remove its files."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Postgres(Service):
    """A fresh cluster, of which any user of this machine is the superuser; no fsync."""

    package = "postgresql"

    def __init__(self) -> None:
        self._programs = _postgres_programs()
        super().__init__()
        data = self.folder / "data"
        data.mkdir()
        if os.geteuid() == 0:
            shutil.chown(data, "postgres", "postgres")
        command = [
            str(self._programs / "initdb"),
            "-D",
            str(data),
            "-U",
            "quotes",
            "-A",
            "trust",
            "--no-sync",
        ]
        done = subprocess.run(
            [*command, "-E", "UTF8", "--locale=C.UTF-8"], capture_output=True, check=False,
            **_as_postgres(),
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(done.stderr.decode())

    def launch(self, log: int) -> subprocess.Popen[bytes]:
        (self.folder / "data" / "postmaster.pid").unlink(missing_ok=True)  # of one that was killed
        settings = {
            "port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "",
            "fsync": "off", "shared_preload_libraries": "pg_stat_statements",
            "log_statement": "none", "max_connections": 60,
        }  # fmt: skip
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return subprocess.Popen(
            [str(self._programs / "postgres"), "-D", str(self.folder / "data"), *options],
            stdout=log, stderr=log, cwd=self.folder, start_new_session=True, **_as_postgres(),
        )  # fmt: skip

    def answers(self) -> bool:
        check = [str(self._programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(check, check=False).returncode == 0

    def signal(self, number: signal.Signals) -> None:
        # Its backends lead sessions of their own, so the group of the first process has not all.
        assert self._process is not None
        for pid in [self._process.pid, *_children(self._process.pid)]:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def url(self, database: str = "postgres") -> str:
        """What DATABASE_URL is set to."""
        return f"postgresql://quotes@127.0.0.1:{self.port}/{database}"

    def sql(self, statement: str, database: str = "postgres") -> str:
        """What psql prints of the result, fields parted by `|`."""
        command = [
            str(self._programs / "psql"),
            "-qXAt",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            self.url(database),
        ]
        done = subprocess.run(
            [*command, "-c", statement], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(done.stderr)
        return done.stdout.strip()


class Redis(Service):
    """A server without any file."""

    package = "redis-server"

    def launch(self, log: int) -> subprocess.Popen[bytes]:
        program = shutil.which("redis-server")
        if program is None:
            raise MissingService("redis-server is not installed (Debian: redis-server)")
        return subprocess.Popen(
            [program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
             "--appendonly", "no", "--daemonize", "no"],
            stdout=log, stderr=log, cwd=self.folder, start_new_session=True,
        )  # fmt: skip

    @property
    def url(self) -> str:
        """What REDIS_URL is set to."""
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self, *words: str) -> str:
        """What redis-cli prints of the answer."""
        command = ["redis-cli", "-p", str(self.port), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def publish(self, channel: str, message: bytes) -> None:
        """Publish what may be any bytes."""
        command = ["redis-cli", "-p", str(self.port), "-x", "PUBLISH", channel]
        subprocess.run(command, input=message, capture_output=True, check=True)


def _postgres_programs() -> Path:
    for folder in POSTGRES_FOLDERS:
        if (folder / "initdb").exists():
            return folder
    if found := shutil.which("initdb"):
        return Path(found).parent
    raise MissingService("Postgres's server is not installed (Debian: postgresql)")


def _as_postgres() -> dict[str, Any]:
    """Postgres refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    entry = pwd.getpwnam("postgres")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []
