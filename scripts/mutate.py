"""Run mutmut over parts of the server, each with the tests that are quick and in-process for it."""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
EQUIVALENT = ROOT / "docs/mutation.md"

DESCRIPTION = """
Show which small changes (mutants) of the code no test notices. The run takes place in a copy of the
work tree below TMPDIR, which is deleted at the end. Mypy's errors count as noticed.
"""

EPILOG = """
Each MODULE is a part (quotes, loader, fanout, gateway, cluster) or one of its files, such as
server/fanout/outbox.py; without any, all parts are run. A part takes from a minute to half an hour.
docs/mutation.md lists the mutants that no test can notice; the exit status is 1 if others survive.
"""

# A log line's words are asserted where somebody relies on them.
UNTOUCHED = (r"\blog\.\w+\(",)

# Seconds: a mutant may take (the tests' own time + 4) × 2, as the machine may be busy.
TIMEOUT_CONSTANT = 4.0
TIMEOUT_MULTIPLIER = 2.0


WITH_SERVERS = (
    "bad_commands",
    "closing",
    "commands",
    "connecting",
    "dead_connections",
    "other_protocols",
    "paths",
    "requests",
    "resume",
    "throttle",
    "tokens",
)

NEEDING_A_SERVER = (
    "claims.py::test_every_wrong_claim_is_401_at_each_door",
    "compression.py::test_bomb_is_1009",
    "compression.py::test_compressed_commands_are_read",
    "compression.py::test_independent_client_understands_it",
    "compression.py::test_message_that_is_never_text_is_1009",
    "compression.py::test_not_offered_is_not_used",
    "compression.py::test_updates_are_small_on_the_wire",
    "compression.py::test_wrong_compression_fails_the_connection",
)


class Part(NamedTuple):
    """Files that are changed, and the tests that are to notice; both are patterns from the root."""

    sources: tuple[str, ...]
    tests: tuple[str, ...]
    without: tuple[str, ...] = ()


PARTS = {
    "quotes": Part(("server/quotes/*.py",), ("tests/quotes",)),
    "loader": Part(
        ("server/store/loader.py",),
        ("tests/store/test_loader.py", "tests/store/test_loader_counts.py"),
    ),
    "fanout": Part(("server/fanout/*.py",), ("tests/fanout",)),
    # Without the tests that start whole servers, which take too long for a thousand runs.
    "gateway": Part(
        ("server/gateway/*.py",),
        (
            "tests/gateway",
            *(f"--ignore=tests/gateway/test_{name}.py" for name in WITH_SERVERS),
            *(f"--deselect=tests/gateway/test_{name}" for name in NEEDING_A_SERVER),
        ),
    ),
    # The bus and its scripts need a real Redis (tests/cluster/test_bus.py).
    "cluster": Part(
        ("server/cluster/*.py",),
        ("tests/cluster/members", "tests/cluster/test_wire.py"),
        without=("server/cluster/bus.py", "server/cluster/scripts.py"),
    ),
}

TYPE_CHECKED = "caught by type check"

_COMMENT = re.compile(r"  # .*$")

_DIFF = re.compile(r"^```diff\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Mutant(NamedTuple):
    """Its name in mutmut, and its result: killed, survived, no tests, timeout, …"""

    name: str
    status: str

    @property
    def file(self) -> str:
        """The changed file."""
        return self.name.rpartition(".")[0].replace(".", "/") + ".py"


def main() -> int:
    """Run what the command line names; the exit status."""
    parser = argparse.ArgumentParser(description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("modules", metavar="MODULE", nargs="*", help="a part or a file")
    parser.add_argument("--jobs", type=int, help="processes at a time; default: one for each core")
    options = parser.parse_args()
    try:
        parts = [_part(module) for module in options.modules or PARTS]
    except LookupError as error:
        parser.error(str(error))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    accepted = equivalents()
    survivors = 0
    for name, part in parts:
        print(f"{name}: {', '.join(part.sources)}", flush=True)
        try:
            with tempfile.TemporaryDirectory(prefix="quotestream-mutants-") as directory:
                survivors += _run(part, Path(directory), options.jobs, accepted)
        except KeyboardInterrupt:
            return 130
    return 1 if survivors else 0


def _part(module: str) -> tuple[str, Part]:
    """Errors: LookupError."""
    if module in PARTS:
        return module, PARTS[module]
    for part in PARTS.values():
        if any(Path(module).match(source) for source in part.sources):
            return module, part._replace(sources=(module,))
    raise LookupError(f"{module} is not one of {', '.join(PARTS)}, nor a file of one")


def _run(part: Part, copy: Path, jobs: int | None, accepted: Counter[str]) -> int:
    """Try all mutants of a part in `copy`; the number of those that survive and should not."""
    copy_tree(copy)
    (copy / "setup.cfg").write_text(configuration(part))
    if status := _run_mutmut(copy, jobs):
        raise SystemExit(status)
    mutants = list(results(copy))
    alive = [each for each in mutants if each.status not in ("killed", "timeout", TYPE_CHECKED)]
    with ThreadPoolExecutor(2) as pool:
        diffs = list(pool.map(lambda each: diff(copy, each.name), alive))
    same = 0
    for mutant, changed in zip(alive, diffs, strict=True):
        if accepted[key(changed)]:
            same += 1
        else:
            print(f"\n{mutant.name}: {mutant.status}\n{changed}")
    ruled_out = sum(each.status == TYPE_CHECKED for each in mutants)
    tried = len(mutants) - ruled_out - same
    killed = len(mutants) - ruled_out - len(alive)
    print(
        f"\n{len(mutants)} mutants: mypy rejects {ruled_out}, {same} are equivalent, and of the other"
        f" {tried} the tests notice {killed}, {100 * killed / max(tried, 1):.1f} %.",
        flush=True,
    )
    return tried - killed


def _run_mutmut(copy: Path, jobs: int | None) -> int:
    """Run mutmut in `copy`; its exit status. However this ends, no process is left."""
    command = [str(BIN / "mutmut"), "run", *(["--max-children", str(jobs)] if jobs else [])]
    (copy / "tmp").mkdir()
    # Its progress goes to stderr: `scripts/mutate > survivors` shows it all the same.
    process = subprocess.Popen(
        command,
        cwd=copy,
        env=os.environ | {"TMPDIR": str(copy / "tmp"), "PYTHONPATH": str(ROOT / "scripts")},
        stdout=sys.stderr,
        start_new_session=True,
    )
    try:
        return process.wait()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def copy_tree(copy: Path) -> None:
    """Copy the files that git knows or would add, as they are in the work tree."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)


def configuration(part: Part) -> str:
    """Mutmut's settings for a part, as setup.cfg."""
    mypy = (sys.executable, "-m", "mypy", *_packages(part))
    settings = {
        "source_paths": ("server",),
        "also_copy": ("bench", "docs"),
        "only_mutate": part.sources,
        "do_not_mutate": part.without,
        "do_not_mutate_patterns": UNTOUCHED,
        "pytest_add_cli_args": ("-p", "quickest_first"),
        "pytest_add_cli_args_test_selection": part.tests,
        "type_check_command": (*mypy, "--output", "json", "--disable-error-code", "unused-ignore"),
        "use_git_change_detection": ("false",),
        "timeout_constant": (str(TIMEOUT_CONSTANT),),
        "timeout_multiplier": (str(TIMEOUT_MULTIPLIER),),
    }
    lines = ["[mutmut]"]
    for name, values in settings.items():
        if values:
            lines += [f"{name} =" if len(values) > 1 else f"{name} = {values[0]}"]
            lines += [f"    {value}" for value in values if len(values) > 1]
    return "\n".join(lines) + "\n"


def _packages(part: Part) -> list[str]:
    return sorted({str(Path(each).parent) if "*" in each else each for each in part.sources})


def results(copy: Path) -> Iterator[Mutant]:
    """All mutants of the run in `copy`."""
    command = [str(BIN / "mutmut"), "results", "--all", "true"]
    shown = subprocess.run(command, cwd=copy, check=True, capture_output=True, text=True).stdout
    for line in shown.splitlines():
        name, _, status = line.strip().partition(": ")
        yield Mutant(name, status)


def diff(copy: Path, name: str) -> str:
    """How a mutant differs from the file."""
    command = [str(BIN / "mutmut"), "show", name]
    shown = subprocess.run(command, cwd=copy, check=True, capture_output=True, text=True).stdout
    return shown[shown.index("--- ") :].strip()


def key(changed: str) -> str:
    """The file and the changed lines of a diff, without context, line numbers and comments."""
    lines = [
        f"{line[0]} {_COMMENT.sub('', line[1:]).strip()}"
        for line in changed.splitlines()
        if line[:1] in ("+", "-") and line[:3] != "+++"
    ]
    return "\n".join(lines)


def equivalents() -> Counter[str]:
    """The mutants that docs/mutation.md lists."""
    return Counter(key(text) for text in _DIFF.findall(EQUIVALENT.read_text()))


if __name__ == "__main__":
    sys.exit(main())
