"""Imports Hypercorn without its HTTP/2, which the HTTP port refuses: 0.8 MB for each process."""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType

UNUSED = ("h2.connection", "priority")
"""Modules that Hypercorn imports, and uses only on a connection of HTTP/2. Python loads each at its
first use (`importlib.util.LazyLoader`).
"""


class _Deferring:
    """Finds UNUSED, and defers their loading."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name in UNUSED else None
        if spec and spec.loader:
            spec.loader = LazyLoader(spec.loader)
        return spec


sys.meta_path.insert(0, _Deferring)
try:
    from hypercorn.config import Config
    from hypercorn.trio.tcp_server import TCPServer
    from hypercorn.trio.worker_context import WorkerContext
    from hypercorn.typing import ConnectionState
finally:
    sys.meta_path.remove(_Deferring)

__all__ = ["Config", "ConnectionState", "TCPServer", "WorkerContext"]
