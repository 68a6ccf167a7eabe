"""Throws conversations at the HTTP port of a running server, over many connections at once.

Each answer must be HTTP/1.1, documented, in the order of the requests, and not after one that said
it was the last. Each whole request before the first spoiled input has exactly one answer, with a
status that its route gives. In the end the server runs, and has the memory and descriptors that it
had.
"""

import re
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import count, pairwise
from random import Random
from typing import Any, NamedTuple

import trio

from tests.fuzz.failure import FuzzFailure
from tests.fuzz.http_inputs import Conversation, make_conversation
from tests.http_wire import READ_SIZE, AnswerReader, BadAnswer, HttpAnswer, exchange, request
from tests.processes import ServerProcess

FAULTS = {"HTTP connection failed"}
"""Events logged below `error` that tell of an exception which ended a connection."""

CONNECTIONS = 48
"""Conversations at a time, fewer than HTTP_MAX_CONNECTIONS: beyond it the server cuts idle
connections.
"""

DEADLINE = 20.0
"""Seconds for one conversation. The longest limit of the port is an idle connection's 15 s."""

PAUSES = (0.0, 0.0, 0.002)
"""Seconds between two parts of an input."""

MANY = 1 << 30
"""A number of answers that no conversation has."""

PATIENCE = (0.0, 0.02, 0.1)
"""Seconds after which a client closes its side while it waits for an answer that need not come."""

WARM_UP = 5000
"""Inputs after which the server has made all that it makes on first use, but the memory of unknown
symbols.
"""

MEMORY_LIMIT = 16 * 1024 * 1024
"""Bytes by which the server may grow after WARM_UP."""

SPARE_DESCRIPTORS = 4
"""Descriptors that come and go without any client."""

SETTLE_TIME = 20.0
"""Seconds after the last conversation in which the server closes its descriptors."""

PROGRESS_INTERVAL = 10.0
"""Seconds between two lines of progress."""

STATUSES = frozenset({200, 304, 400, 401, 403, 404, 405, 408, 413, 429, 431, 503, 505})
"""Every documented status and code."""

BUSY = {429, 503}
"""Answers to any request of a client that sent too many."""


class Outcome(NamedTuple):
    """Answers by status, inputs a second, and the server's resident bytes after WARM_UP and at the
    end.
    """

    seen: Counter[str]
    inputs: int
    rate: float
    before: int
    after: int


class Footprint(NamedTuple):
    """The server's own metrics of its process."""

    resident: int
    descriptors: int


async def fuzz_http(address: tuple[str, int], inputs: int, seed: int) -> Outcome:
    """Throw `inputs`, or a few more, at the port. Errors: FuzzFailure, once in an exception group."""
    run = _Run(address, inputs, seed)
    before = _footprint(address)
    async with trio.open_nursery() as nursery:
        for _ in range(CONNECTIONS):
            nursery.start_soon(run.work)
    after = await _settled(address, before)
    grown = after.resident - run.warm.resident
    if grown > MEMORY_LIMIT:
        raise FuzzFailure(f"--seed {seed}: memory grew from {run.warm} to {after}")
    return Outcome(run.seen, run.done, run.rate, run.warm.resident, after.resident)


class _Run:
    """The state that the connections of one run share."""

    def __init__(self, address: tuple[str, int], inputs: int, seed: int) -> None:
        self.seen: Counter[str] = Counter()
        self.done = 0
        self.warm = Footprint(1 << 62, 0)
        self._address = address
        self._inputs = inputs
        self._seed = seed
        self._numbers: Iterator[int] = count()
        self._started = time.monotonic()
        self._told = self._started

    @property
    def rate(self) -> float:
        """Return the inputs a second until now."""
        return self.done / (time.monotonic() - self._started)

    async def work(self) -> None:
        """Have one conversation after the other until enough inputs were thrown."""
        while self.done < self._inputs:
            number = next(self._numbers)
            await talk(self._address, self._seed, number, self.seen)
            self.done += len(conversation(self._seed, number).pieces)
            self._tell()

    def _tell(self) -> None:
        if self.warm.descriptors == 0 and self.done >= min(WARM_UP, self._inputs // 2):
            self.warm = _footprint(self._address)
        if time.monotonic() - self._told > PROGRESS_INTERVAL:
            self._told = time.monotonic()
            now = _footprint(self._address)
            print(f"{self.done} inputs, {self.rate:.0f}/s, {now}", flush=True)


def conversation(seed: int, number: int) -> Conversation:
    """Return the conversation of that number."""
    return make_conversation(Random(f"{seed}/{number}"))


async def talk(address: tuple[str, int], seed: int, number: int, seen: Counter[str]) -> None:
    """Have one conversation and check the answers. Errors: FuzzFailure."""
    script = conversation(seed, number)
    reader = AnswerReader(*(piece.method for piece in script.certain))
    try:
        with trio.fail_after(DEADLINE):
            await _converse(address, script, Random(f"{seed}/{number}/time"), reader)
        _check(script, reader.answers)
    except (BadAnswer, OSError, trio.TooSlowError) as error:
        raise FuzzFailure(
            f"--seed {seed} --connection {number}: {error!r}\n"
            f"sent, cut at {list(script.cuts)}, then {script.ending}: {script.data.hex()}\n"
            f"answers: {[brief(answer) for answer in reader.answers]}"
        ) from error
    for answer in reader.answers:
        seen[f"{answer.status} {answer.code}".rstrip()] += 1


async def _converse(
    address: tuple[str, int], script: Conversation, random: Random, reader: AnswerReader
) -> None:
    with trio.socket.socket() as sock:
        await sock.connect(address)
        with suppress(ConnectionResetError, BrokenPipeError):  # it was enough for the server
            for start, end in pairwise((0, *script.cuts, len(script.data))):
                await _send_all(sock, script.data[start:end])
                await trio.sleep(random.choice(PAUSES))
        if script.ending == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if script.ending in ("reset", "close"):
            return
        if script.ending == "read":
            certain = script.certain
            if not await _read(sock, reader, len(certain)) or (certain and certain[-1].last):
                await _read(sock, reader)
            elif len(certain) < len(script.pieces):
                with trio.move_on_after(random.choice(PATIENCE)):
                    await _read(sock, reader)
        with suppress(OSError):
            sock.shutdown(socket.SHUT_WR)
        await _read(sock, reader)
        reader.end()


async def _send_all(sock: trio.socket.SocketType, data: bytes) -> None:
    while data:
        data = data[await sock.send(data) :]


async def _read(sock: trio.socket.SocketType, reader: AnswerReader, answers: int = MANY) -> bool:
    """Read until there are `answers` answers; return False if the server ended the connection
    before.
    """
    while len(reader.answers) < answers:
        try:
            data = await sock.recv(READ_SIZE)
        except ConnectionResetError:
            return False
        if not data:
            return False
        reader.feed(data)
    return True


def brief(answer: HttpAnswer) -> str:
    """Return the status and the beginning of the body."""
    return f"{answer.status} {(answer.body or b'')[:100]!r}{' close' * answer.is_last}"


def _check(script: Conversation, answers: Sequence[HttpAnswer]) -> None:
    for answer in answers:
        status, _ = answer.verdict  # an error of another shape is raised here
        if status not in STATUSES:
            raise BadAnswer(f"undocumented: {brief(answer)}")
    for piece, answer in zip(script.certain, answers, strict=False):
        if answer.status not in (piece.expected or STATUSES) | BUSY:
            raise BadAnswer(f"{brief(answer)} to {piece.data[:300]!r}")
    if script.ending == "read" and len(answers) < len(script.certain):
        raise BadAnswer(f"{len(answers)} answers to {len(script.certain)} whole requests")
    possible = len(re.findall(rb"(?i)http/", script.data)) + 1
    if len(answers) > possible:
        raise BadAnswer(f"{len(answers)} answers, {possible} at most can be to what was sent")


def _footprint(address: tuple[str, int]) -> Footprint:
    try:
        asked = exchange(address, request("/metrics", Connection="close"), timeout=DEADLINE)
    except OSError as error:
        raise FuzzFailure(f"the server is not there: {error}") from error
    lines = [
        line.split() for answer in asked.answers() for line in (answer.body or b"").splitlines()
    ]
    values = {line[0]: float(line[1]) for line in lines if line[0].startswith(b"process_")}
    try:
        return Footprint(
            int(values[b"process_resident_memory_bytes"]), int(values[b"process_open_fds"])
        )
    except KeyError:
        raise FuzzFailure(f"/metrics says {asked.received[:200]!r}") from None


async def _settled(address: tuple[str, int], before: Footprint) -> Footprint:
    """Wait until the connections are gone. Errors: FuzzFailure."""
    deadline = trio.current_time() + SETTLE_TIME
    while (now := _footprint(address)).descriptors > before.descriptors + SPARE_DESCRIPTORS:
        if trio.current_time() > deadline:
            raise FuzzFailure(f"descriptors are left: {before} became {now}")
        await trio.sleep(0.2)
    return now


def check_server(server: ServerProcess) -> None:
    """Check that the server runs and logged no error. Errors: FuzzFailure."""
    if (code := server.process.poll()) is not None:
        raise FuzzFailure(f"the server has ended with {code}: {server.log.read_text()[-5000:]}")
    if errors := [line for line in server.log_lines() if is_fault(line)]:
        raise FuzzFailure(f"the server logged {len(errors)} faults, first: {errors[0]}")


def is_fault(line: dict[str, Any]) -> bool:
    """Return whether a line of the log tells of an unexpected exception."""
    return line["level"] in ("error", "critical") or line["event"] in FAULTS
