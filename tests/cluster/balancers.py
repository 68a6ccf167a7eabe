"""HAProxy and nginx as private processes, with the configurations that the documents give operators."""

import shutil
import socket
import subprocess
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

from bench.services import MissingService, Service
from tests.processes import make_token

DOCUMENTS = Path(__file__).parents[2] / "docs"

PATHS = ("/usr/sbin", "/usr/local/sbin", "/usr/bin")
"""Folder of servers on Debian; not every user's PATH has it."""


class Balancer(Service):
    """In front of `instances`, which are two pairs of streaming and HTTP port."""

    document = ""

    def __init__(self, instances: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        text = (DOCUMENTS / self.document).read_text()
        for host, (quotes, http) in zip(("192.0.2.11", "192.0.2.12"), instances, strict=True):
            assert f"server {host}" in text or f" {host}:8080" in text
            text = text.replace(f"{host}:8080 port 8081", f"127.0.0.1:{quotes} port {http}")
            text = text.replace(f"{host}:8080", f"127.0.0.1:{quotes}")
            text = text.replace(f"{host}:8081", f"127.0.0.1:{http}")
        self.config = self.folder / self.document
        self.config.write_text(self.adapt(text))

    @abstractmethod
    def adapt(self, text: str) -> str:
        """The document for this process: a port and files of its own."""

    def program(self) -> str:
        """Its path. Errors: MissingService."""
        found = shutil.which(self.package) or shutil.which(self.package, path=":".join(PATHS))
        if found is None:
            raise MissingService(f"{self.package} is not installed (Debian: {self.package})")
        return found

    def url(self, symbols: str | None = None, token: str | None = None) -> str:
        """The address to connect to, as of a server."""
        query = f"token={make_token() if token is None else token}"
        query += f"&symbols={symbols}" if symbols is not None else ""
        return f"ws://127.0.0.1:{self.port}/ws/quotes?{query}"


class HAProxy(Balancer):
    """Polls `/readyz`."""

    package = "haproxy"
    document = "haproxy.cfg"

    def adapt(self, text: str) -> str:
        assert "bind *:80\n" in text
        stats = f"    stats socket {self.folder}/stats\n"
        text = text.replace("    maxconn 50000", f"{stats}    maxconn 1000")
        return text.replace("bind *:80\n", f"bind 127.0.0.1:{self.port}\n")

    def launch(self, log: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [self.program(), "-db", "-f", str(self.config)],
            stdout=log,
            stderr=log,
            cwd=self.folder,
            start_new_session=True,
        )

    @property
    def green(self) -> int:
        """Return the number of instances that it takes for ready."""
        with socket.socket(socket.AF_UNIX) as stats:
            stats.connect(str(self.folder / "stats"))
            stats.sendall(b"show stat\n")
            rows = stats.makefile().read().splitlines()
        status = rows[0].split(",").index("status")
        return sum(
            row.startswith(("quotes,a,", "quotes,b,")) and row.split(",")[status] == "UP"
            for row in rows
        )


class Nginx(Balancer):
    """Notices by failed connections that an instance has gone."""

    package = "nginx"
    document = "nginx.conf"

    def adapt(self, text: str) -> str:
        assert "listen 80;" in text
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        folders = "".join(f"{kind}_temp_path {self.folder}/{kind}; " for kind in kinds)
        text = text.replace("listen 80;", f"listen 127.0.0.1:{self.port};")
        text = text.replace("worker_processes auto;", "worker_processes 2;")
        return text.replace("http {\n", f"http {{ {folders}\n", 1)

    def launch(self, log: int) -> subprocess.Popen[bytes]:
        own = f"daemon off; pid {self.folder}/pid; error_log {self.folder}/errors;"
        return subprocess.Popen(
            [self.program(), "-p", str(self.folder), "-c", str(self.config), "-g", own],
            stdout=log,
            stderr=log,
            cwd=self.folder,
            start_new_session=True,
        )
