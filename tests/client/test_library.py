"""The library `quotestream` as its users get it: the wheel, what it imports, and its types."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.processes import ServerProcess, make_token

ROOT = Path(__file__).parents[2]

SERVING = {
    *("hypercorn", "starlette", "structlog", "prometheus_client", "dotenv", "rich", "jwt"),
    *("asyncpg", "redis", "trio_asyncio", "cryptography", "sqlite3"),
    *("server.app", "server.cli", "server.client", "server.config", "server.fanout"),
    *("server.gateway", "server.ops", "server.store"),
}
"""Modules of the server, which a client has no use for."""

TRIO = {"trio", "trio_websocket", "server.websocket_client"}
"""Modules that only trio's driver needs."""

LISTED = "; import sys; print(*sys.modules)"

ON_ASYNCIO = """
import asyncio, quotestream, sys
async def main():
    async with quotestream.connect(sys.argv[1], token=sys.argv[2], symbols=["AAPL"]) as quotes:
        async for change in quotes:
            return
asyncio.run(main())
print(*sys.modules)
"""

ON_TRIO = ON_ASYNCIO.replace("import asyncio", "import trio").replace(
    "asyncio.run(main())", "trio.run(main)"
)


def run_python(*arguments: str, python: str = sys.executable, cwd: Path | None = None) -> str:
    """Run Python, and return its output. Errors: CalledProcessError."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        [python, "-W", "error", *arguments],
        cwd=cwd,
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    return done.stdout


def test_import_needs_nothing_of_the_server():
    """The import loads neither the server that serves nor trio."""
    imported = {*run_python("-c", "import quotestream" + LISTED).split()}
    assert {"quotestream.client", "msgspec", "server.quotes.quote"} <= imported
    assert imported & (SERVING | TRIO) == set()


def test_connection_needs_the_driver_in_use_only(tmp_path):
    """On asyncio a connection loads no trio, and on either none of the server that serves."""
    with ServerProcess(tmp_path) as server:
        given = server.quotes_url, make_token()
        asyncio_modules = {*run_python("-c", ON_ASYNCIO, *given).split()}
        trio_modules = {*run_python("-c", ON_TRIO, *given).split()}
    assert asyncio_modules & (SERVING | TRIO) == set()
    assert trio_modules & SERVING == set()
    assert trio_modules >= TRIO


@pytest.fixture(scope="module")
def wheel_python(tmp_path_factory) -> str:
    """A new environment that has the wheel, and the packages of this one."""
    folder = tmp_path_factory.mktemp("wheel")
    run_python(
        *("-W", "default", "-m", "pip", "--quiet", "--disable-pip-version-check", "wheel"),
        *("--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)),
        cwd=folder,
    )
    run_python("-m", "venv", "--without-pip", str(folder / "venv"))
    python = str(folder / "venv/bin/python")
    site = Path(
        run_python("-c", "import site; print(site.getsitepackages()[0])", python=python).strip()
    )
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    # A path within a .pth file brings packages, and not the .pth file of this checkout.
    (site / "packages.pth").write_text(sysconfig.get_path("purelib"))
    return python


def test_wheel_has_the_library(wheel_python, tmp_path):
    """The wheel's library is a package of its own with types. The README's lines run with it."""
    shown = run_python(
        "-c",
        "import quotestream, server; print(quotestream.__file__, server.__file__)",
        python=wheel_python,
        cwd=tmp_path,
    )
    library, served = (Path(each) for each in shown.split())
    assert library.parent.parent == served.parent.parent
    assert not library.is_relative_to(ROOT)
    assert (library.parent / "py.typed").exists()
    readme = (ROOT / "README.md").read_text()
    block = readme.split("```python\n")[1].split("```")[0]
    with ServerProcess(tmp_path, PRICE_UPDATE_INTERVAL="50ms") as server:
        lines = block.replace("ws://127.0.0.1:8080", server.quotes_url)
        lines = lines.replace(
            "async for change in quotes:",
            "async for change in quotes:\n            if change.version > 2: break",
        )
        lines = lines.replace('token = "', f'token = "{make_token()}" or "')
        assert "AAPL" in run_python("-c", lines, python=wheel_python, cwd=tmp_path)


def test_users_get_types(wheel_python, tmp_path):
    """With the wheel, a user's program passes mypy's strict checks, and mistakes in it do not."""
    program = tmp_path / "program.py"
    text = """
import quotestream

async def prices(url: str) -> float | None:
    async with quotestream.connect(url, token=lambda: "x", symbols=["AAPL"]) as quotes:
        async for change in quotes:
            if change.quote is not None:
                return change.quote.bid
        bars = await quotes.bars(["AAPL"], "1m")
        async for bar in bars:
            print(bar.c, quotes.state == "live", quotes.missed)
    return None

print(quotestream.get("AAPL")["AAPL"].current_price)
"""
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path)]
    command += ["--python-executable", wheel_python, str(program)]
    mistakes = (
        "print(quotestream.get('AAPL')['AAPL'].prise)\n",
        "quotestream.connect('ws://host', format='xml')\n",
        "quotestream.connect('ws://host', token=5)\n",
    )
    for wrong in ("", *mistakes):
        program.write_text(text + wrong)
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == bool(wrong), done.stdout
