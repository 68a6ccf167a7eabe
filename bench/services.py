"""Private Postgres and Redis servers on free ports, for benchmarks and tests."""

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
"""Debian's folders of Postgres, the newest first. Other systems have its programs in PATH."""

START_TIMEOUT = 20.0
"""Seconds for a server to start."""

KEPT_PORTS = range(20_000, 32_000)
"""Below the ports that Linux gives to clients. So no client takes a server's port while it restarts."""


class MissingService(Exception):
    """A server's program is not installed. The message names its package."""


def free_port() -> int:
    """Return a port of this machine on which no process listens, and keep it for this process.

    Another process that calls this gets other ports, even while a server of this one is down.
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
        # Not below pytest's own folders, which Postgres's user cannot read.
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

    @property
    def pid(self) -> int:
        """The id of the process that runs."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start or restart the server, and return when it answers."""
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
        """Return whether a client can connect."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 0.2):
                return True
        except OSError:
            return False

    def kill(self) -> None:
        """Send SIGKILL to the server and every process that it started."""
        if self._process is not None:
            # It may have ended by itself.
            with suppress(ProcessLookupError):
                self.signal(signal.SIGCONT)
                self.signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Send SIGSTOP: connections stay open, the kernel accepts bytes, and nothing answers."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server continue."""
        self.signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server and every process that it started."""
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def close(self) -> None:
        """End the server and remove its files."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Postgres(Service):
    """A new database cluster without fsync. Every user of this machine is its superuser."""

    package = "postgresql"

    def __init__(self) -> None:
        self.programs = _postgres_programs()
        super().__init__()
        data = self.folder / "data"
        data.mkdir()
        if os.geteuid() == 0:
            shutil.chown(data, "postgres", "postgres")
        options = ["-U", "quotes", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8"]
        command = [str(self.programs / "initdb"), "-D", str(data), *options]
        done = subprocess.run(command, capture_output=True, check=False, **as_postgres())
        if done.returncode:
            raise RuntimeError(done.stderr.decode())

    def launch(self, log: int) -> subprocess.Popen[bytes]:
        # A killed server leaves its file.
        (self.folder / "data" / "postmaster.pid").unlink(missing_ok=True)
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "shared_preload_libraries": "pg_stat_statements",
            "log_statement": "none",
            "max_connections": 60,
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return subprocess.Popen(
            [str(self.programs / "postgres"), "-D", str(self.folder / "data"), *options],
            stdout=log,
            stderr=log,
            cwd=self.folder,
            start_new_session=True,
            **as_postgres(),
        )

    def answers(self) -> bool:
        check = [str(self.programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(check, check=False).returncode == 0

    def signal(self, number: signal.Signals) -> None:
        # Its backends lead sessions of their own, so they are not in the first process's group. It can
        # start one until the signal comes, and a killed process has no children any more.
        assert self._process is not None
        first = self._process.pid
        backends = {*_children(first)}
        _send(number, first)
        for pid in backends | {*_children(first)}:
            _send(number, pid)

    def url(self, database: str = "postgres") -> str:
        """Return the value of DATABASE_URL."""
        return f"postgresql://quotes@127.0.0.1:{self.port}/{database}"

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Run a statement with psql, and return its output with fields separated by `|`."""
        options = ["-qXAt", "-v", "ON_ERROR_STOP=1", "-d", self.url(database), "-c", statement]
        command = [str(self.programs / "psql"), *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr)
        return done.stdout.strip()


class Redis(Service):
    """A Redis that writes no files of its own accord, unless `persistence` has other options."""

    package = "redis-server"
    persistence: tuple[str, ...] = ("--appendonly", "no")

    def launch(self, log: int) -> subprocess.Popen[bytes]:
        program = shutil.which("redis-server")
        if program is None:
            raise MissingService("redis-server is not installed (Debian: redis-server)")
        options = ["--bind", "127.0.0.1", "--daemonize", "no", "--save", "", *self.persistence]
        return subprocess.Popen(
            [program, "--port", str(self.port), *options],
            stdout=log,
            stderr=log,
            cwd=self.folder,
            start_new_session=True,
        )

    @property
    def url(self) -> str:
        """Return the value of REDIS_URL."""
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self, *words: str) -> str:
        """Run a command with redis-cli, and return its output."""
        command = ["redis-cli", "-p", str(self.port), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def publish(self, channel: str, message: bytes) -> None:
        """Publish a message of any bytes."""
        command = ["redis-cli", "-p", str(self.port), "-x", "PUBLISH", channel]
        subprocess.run(command, input=message, capture_output=True, check=True)


def _postgres_programs() -> Path:
    for folder in POSTGRES_FOLDERS:
        if (folder / "initdb").exists():
            return folder
    if found := shutil.which("initdb"):
        return Path(found).parent
    raise MissingService("Postgres's server is not installed (Debian: postgresql)")


def as_postgres() -> dict[str, Any]:
    """Return the options to run as another user, as Postgres refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    entry = pwd.getpwnam("postgres")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _send(number: signal.Signals, pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []
