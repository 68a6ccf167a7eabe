"""Other servers with the same broadcast, each a process with a rate and a burst."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

from bench.forms import Form
from bench.load import Options
from bench.screen import show
from bench.steps import Start
from bench.target import Process

HERE = Path(__file__).parent

MODULES = {
    "bare loop": ("bench.limit", ""),
    "websockets": ("bench.peers.websockets_broadcast", "websockets"),
    "trio-websocket": ("bench.peers.trio_websocket_plain", "trio_websocket"),
    "picows": ("bench.peers.picows_server", "picows"),
    "uWebSockets": ("bench.peers.uwebsockets_server", "socketify"),
}
"""The module to run and the package that it needs, by name."""

PEERS = ["quotestream", *MODULES, "ws"]


def own_server(options: Options, burst: int) -> Start:
    """Return a starter of the project's own server. All its symbols move at the same moment."""
    return lambda rate: options.open(options.schedule(burst, rate, together=True))


def bare_loop(form: Form, rate: float, burst: int = 1) -> Process:
    """Return the reference server, bench/limit.py."""
    return _process([sys.executable, "-m", "bench.limit"], form, rate, burst)


def entrant(name: str, options: Options, burst: int) -> Start | None:
    """Return a starter of the server `name`; None, with a message, if it is not installed."""
    if name == "quotestream":
        return own_server(options, burst)
    command = _node() if name == "ws" else _python(name)
    if command is None:
        show(f"{name} is left out: it is not installed")
        return None
    return lambda rate: _process(command, options.form, rate, burst)


def _process(command: list[str], form: Form, rate: float, burst: int) -> Process:
    asked = f"--format={form.name}", f"--fields={form.fields}"
    return Process([*command, f"--rate={rate}", f"--burst={burst}", *asked])


def _python(name: str) -> list[str] | None:
    module, package = MODULES[name]
    if package and importlib.util.find_spec(package) is None:
        return None
    return [sys.executable, "-m", module]


def _node() -> list[str] | None:
    """Return the command of Node with the package `ws`, from bench/peers/node_modules or global."""
    node = shutil.which("node")
    if node is None:
        return None
    script = str(HERE / "ws_server.mjs")
    found = subprocess.run(
        [node, "--input-type=module", "-e", "import 'ws'"],
        cwd=HERE,
        capture_output=True,
        check=False,
    )
    return [node, script] if found.returncode == 0 else None
