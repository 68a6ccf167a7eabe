"""Run flake8_async on the files that changed since they passed; a clean checkout has none.

It needs a second for every ten files. A file that passed is known by its content, the version and the
options, so that no change is missed.
"""

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

PASSED = Path(".venv/.flake8_async_passed")
"""The digests of what passed, a line each."""

OPTIONS = [
    # ASYNC123: the Python client raises one exception of a group, as its caller need not know of
    # trio-websocket's tasks. ASYNC124: some of Starlette's handlers never wait, but it runs plain
    # functions in threads. ASYNC9xx: checkpoints everywhere; off by default.
    "--disable=ASYNC123,ASYNC124,ASYNC900,ASYNC910,ASYNC911,ASYNC912,ASYNC913",
    "--startable-in-context-manager=run,run_market_hours,serve,handle_signals,_take_signals",
]

CONCERNED = re.compile(rb"async|await|trio|BaseException|except\s*:|Cancelled|KeyboardInterrupt")
"""Words that every rule of flake8_async needs: a file without them breaks none."""

GROUP = 8
"""Files that one process checks: its start takes as long as five files."""


def main() -> int:
    """Check what has not passed; the exit code is 1 if something is wrong."""
    passed = set(PASSED.read_text().split()) if PASSED.exists() else set()
    files = {digest: path for path, digest in digests()}
    left = [digest for digest in files if digest not in passed]
    groups = [left[start : start + GROUP] for start in range(0, len(left), GROUP)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        outcomes = list(pool.map(lambda group: check([files[each] for each in group]), groups))
    good = [group for group, outcome in zip(groups, outcomes, strict=True) if outcome]
    kept = passed & files.keys() | {digest for group in good for digest in group}
    PASSED.write_text("\n".join(sorted(kept)))
    print(f"flake8_async checked {len(left)} of {len(files)} files, the others passed before.")
    return len(good) < len(groups)


def digests() -> Iterator[tuple[str, str]]:
    """Find the files that it concerns, each with what its result depends on."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.py"]
    names = subprocess.run(listed, capture_output=True, check=True, text=True).stdout.split("\0")
    for name in filter(os.path.exists, names):
        content = Path(name).read_bytes()
        if CONCERNED.search(content):
            parts = name, version("flake8-async"), *OPTIONS
            yield name, hashlib.sha256("\0".join(parts).encode() + content).hexdigest()


def check(paths: Sequence[str]) -> bool:
    """Check some files in a process of its own, which prints what is wrong."""
    command = [sys.executable, "-m", "flake8_async", *OPTIONS, *paths]
    return subprocess.run(command, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
