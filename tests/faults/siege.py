"""A server under attack on its HTTP port while clients stream, and the checks that the attack did
no harm.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.faults.witness import Report, Witness
from tests.http_wire import exchange, request
from tests.processes import WITHOUT_BUDGETS, ServerProcess
from tests.stopwatch import Stopwatch

P99_LIMIT = 0.1
"""Seconds in which 99 of 100 pings are answered during an attack."""

P99_OF_QUIET = 3.0
"""The limit is this multiple of the p99 just before the attack, if that is longer. On a shared
machine, pings may take a hundred milliseconds without any attack.
"""

QUIET_PINGS, ATTACK_PINGS = 100, 200
"""The least number of round trips before an attack and during it: one second's, and two seconds'."""

SILENCE_LIMIT = 2.0
"""Seconds without a price for a client that gets several each 100 ms. An attack that succeeded had
conflated all prices to one in 4 s.
"""

HEALTH_TIME = 2.0
"""Seconds in which a new client gets its answer from /healthz, also under attack."""

RECOVERY_TIME = 10.0
"""Seconds after an attack in which memory and descriptors return to their numbers."""

MEMORY_TOLERANCE = 12 * 1024 * 1024
"""Bytes that an attack may leave: buffers that the allocator keeps, and code that ran for the first
time. A test repeats an attack that leaks until it has leaked more.
"""

DESCRIPTOR_TOLERANCE = 2
"""Descriptors that come and go without any attack."""

PATIENT_SERVER = {"PRICE_UPDATE_INTERVAL": "100ms", "WS_COMMAND_RATE": "1000"} | WITHOUT_BUDGETS
"""The server's variables: moving prices, quick pings, and no attacker that is told to wait."""


class Footprint(NamedTuple):
    """Resident bytes and open descriptors of a process."""

    resident: int
    descriptors: int

    @classmethod
    def of(cls, pid: int) -> "Footprint":
        """Return the footprint at this moment."""
        status = Path(f"/proc/{pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        descriptors = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
        return cls(int(line.split()[1]) * 1024, descriptors)

    def is_back(self, before: "Footprint") -> bool:
        """Return whether memory and descriptors are about what they were `before`."""
        return (
            self.resident <= before.resident + MEMORY_TOLERANCE
            and self.descriptors <= before.descriptors + DESCRIPTOR_TOLERANCE
        )


class Siege:
    """A server and its witness, which stream until one of them ends."""

    def __init__(self, server: ServerProcess, witness: Witness) -> None:
        self.server = server
        self._witness = witness
        self.is_broken = False

    @property
    def address(self) -> tuple[str, int]:
        """The address to attack."""
        return self.server.http_address

    @contextmanager
    def attack(self) -> Iterator[None]:
        """Measure, let the attack run, and check that no other client noticed it."""
        self.is_broken = True  # until it is found to be whole
        quiet = self._witness.report(QUIET_PINGS)
        assert not quiet.problems
        before = Footprint.of(self.server.process.pid)
        self._witness.report()
        watch = Stopwatch(self.server.process.pid)
        yield
        assert self.server.process.poll() is None, "the attack has ended the server"
        health = self._health()
        report = self._witness.report(ATTACK_PINGS)
        after = self._recovered(before)
        problems = [*self._noticed(quiet, report, watch), *health]
        if not after.is_back(before):
            problems.append(f"{before} became {after}")
        self.is_broken = bool(problems)
        if problems:
            pytest.fail("; ".join(problems))

    def _health(self) -> list[str]:
        watch = Stopwatch(self.server.process.pid)
        asked = exchange(self.address, request(Connection="close"), timeout=RECOVERY_TIME)
        seconds = watch.seconds
        statuses = [answer.status for answer in asked.answers()]
        if statuses == [200] and seconds < HEALTH_TIME:
            return []
        return [f"/healthz: {statuses} after {seconds:.1f} s"]

    def _noticed(self, quiet: Report, report: Report, watch: Stopwatch) -> list[str]:
        problems = list(report.problems)
        allowance = watch.waited if watch.is_starved else 0.0
        limit = max(P99_LIMIT, P99_OF_QUIET * quiet.p99) + allowance
        if report.p99 > limit:
            problems.append(
                f"p99 of pings {report.p99 * 1000:.0f} ms, {quiet.p99 * 1000:.0f} ms before"
            )
        if report.silence > SILENCE_LIMIT + allowance:
            problems.append(f"no price for {report.silence:.1f} s")
        return problems

    def _recovered(self, before: Footprint) -> Footprint:
        deadline = time.monotonic() + RECOVERY_TIME
        while not (now := Footprint.of(self.server.process.pid)).is_back(before):
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
        return now


@contextmanager
def besiege(folder: Path, **variables: str) -> Iterator[Siege]:
    """Start a server with moving prices whose HTTP code has run once, and its witness."""
    with ServerProcess(folder, **PATIENT_SERVER, **variables) as server:
        for path in ("/healthz", "/metrics", "/health", "/nowhere"):
            exchange(server.http_address, request(path, Connection="close"))
        with Witness(server.quotes_url) as witness:
            yield Siege(server, witness)
