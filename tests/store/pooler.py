"""A real PgBouncer that gives each transaction any of its connections."""

import shutil
import subprocess

from bench.services import MissingService, Postgres, Service, as_postgres


class PgBouncer(Service):
    """In front of `postgres`, with `size` connections to it."""

    package = "pgbouncer"

    def __init__(self, postgres: Postgres, size: int = 2) -> None:
        super().__init__()
        self._config = self.folder / "pgbouncer.ini"
        self._config.write_text(
            f"[databases]\n* = host=127.0.0.1 port={postgres.port} user=quotes\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\n"
            "auth_type = any\npool_mode = transaction\nunix_socket_dir =\n"
            f"default_pool_size = {size}\nserver_round_robin = 1\n"
        )

    def launch(self, log: int) -> subprocess.Popen[bytes]:
        program = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin")
        if program is None:
            raise MissingService("pgbouncer is not installed (Debian: pgbouncer)")
        return subprocess.Popen(
            [program, str(self._config)],
            stdout=log,
            stderr=log,
            cwd=self.folder,
            start_new_session=True,
            **as_postgres(),
        )

    def url(self, database: str) -> str:
        """Return the value for DATABASE_URL."""
        return f"postgresql://quotes@127.0.0.1:{self.port}/{database}"
