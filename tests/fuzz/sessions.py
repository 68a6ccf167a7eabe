"""Throws frames and commands at sessions.

Each input is a handful of frames that are well formed, nearly so, or not at all. A real session on
a pair of sockets receives them, in any form. Half of the sessions resume from an arbitrary position.
The session must answer as documented or close with a documented code. It must never raise, and the
process must not grow. The printed seed reproduces a failure.
"""

import json
import resource
import socket
import time
import zlib
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, get_args

import msgspec
import trio

from server.fanout.hub import Hub
from server.gateway.auth import Authenticator, Identity
from server.gateway.budgets import Budget, Budgets
from server.gateway.gateway import Gateway
from server.gateway.handshake import Admission
from server.gateway.pool import Pool
from server.gateway.selection import Selection
from server.gateway.session import Session
from server.quotes import messages
from server.quotes.compact import Schema
from server.quotes.instrument import Instrument
from server.quotes.messages import (
    ErrorCode,
)
from server.quotes.position import parse_position
from server.quotes.view import FORMS
from tests.commands import COMMANDS, FIELDS, example
from tests.forms import FormDocument
from tests.frames import take_frame
from tests.fuzz.failure import FuzzFailure
from tests.gateway.harness import COMPLETE
from tests.gateway.wire import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame
from tests.processes import SECRET

TYPES = {
    each.__struct_config__.tag
    for each in (*vars(messages).values(), Schema)
    if isinstance(each, type)
    and issubclass(each, msgspec.Struct)
    and each.__struct_config__.tag_field == "type"
}
"""The types of the server's messages, from its own definitions."""

ERRORS = set(get_args(ErrorCode))
CODES = {1002, 1003, 1007, 1008, 1009}

WARM_UP = 1000
"""Inputs after which the process has made all that it makes on first use."""

MEMORY_LIMIT = 8 * 1024 * 1024
"""Bytes by which the process may grow after WARM_UP."""

BOMB = 256 * 1024
"""Bytes of text in some compressed messages, 16 times the limit. More would show in the watched
memory, which is also the fuzzer's.
"""

SENT: list[dict[str, Any]] = [
    *map(example, COMMANDS),
    {"action": "subscribe", "symbols": ["*"]},
    {"action": "unsubscribe", "symbols": ["AAPL", "*"]},
]
"""Commands that are sent, whole or spoiled."""

VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    2**63,
    2**64,
    1e308,
    "",
    "é",
    "\x00",
    "*",
    "AAPL",
    "a" * 300,
    [],
    {},
    [[]],
    ["AAPL"] * 600,
    {"a": {"b": []}},
    "1s",
    "∞",
    "\u0661s",
]


RESUMED = ["AAPL", "AAPL", "aapl ", "MSFT", "NOPE", "*", "A=B", "\u0661", "\x00"]
HELD = ["0", "1", "1", "2", "77", "9" * 18]
NOT_HELD = [
    "=1",
    "AAPL=",
    "AAPL=-1",
    "AAPL=1.0",
    "AAPL=\u0661",
    "AAPL=1e3",
    "AAPL",
    "AAPL=" + "9" * 19,
]


def make_text(random: Random) -> bytes:
    """Return a command, one with a spoiled field, or spoiled text."""
    command = dict(random.choice(SENT))
    for _ in range(random.choice((0, 0, 1, 2))):
        key = random.choice([*command, "action", *FIELDS, "x"])
        command[key] = random.choice(VALUES)
    text = bytearray(json.dumps(command, ensure_ascii=random.random() < 0.5).encode())
    for _ in range(random.choice((0, 0, 0, 1, 3))):
        text[random.randrange(len(text))] = random.randrange(256)
    if random.random() < 0.02:
        text = bytearray(b"[" * random.choice((10, 5000, 20_000)))
    return bytes(text)


def make_resume(random: Random, epoch: str) -> str:
    """Return the parameter `resume`: a position in this epoch or another, or a text that is not one."""
    held = (
        random.choice(NOT_HELD)
        if random.random() < 0.05
        else f"{random.choice(RESUMED)}={random.choice(HELD)}"
        for _ in range(random.choice((0, 1, 1, 2, 5, 30)))
    )
    parts = (
        random.choice((epoch, epoch, epoch, "x", "")),
        random.choice("::::::::="),
        ",".join(held),
    )
    text = "".join(parts)
    if random.random() < 0.2:
        at = random.randrange(len(text) + 1)
        text = text[:at] + chr(random.randrange(0x110000)) + text[at + random.randrange(3) :]
    return text


def make_packed(random: Random) -> bytes:
    """Return a command in MessagePack, one with a spoiled field, or spoiled bytes."""
    try:
        value: Any = json.loads(make_text(random))
    except (ValueError, RecursionError):
        value = random.choice(VALUES)
    try:
        packed = bytearray(msgspec.msgpack.encode(value))
    except (OverflowError, UnicodeEncodeError):
        packed = bytearray(random.randbytes(20))
    for _ in range(random.choice((0, 0, 0, 1, 3))):
        packed[random.randrange(len(packed))] = random.randrange(256)
    if random.random() < 0.02:
        packed = bytearray(random.choice((b"\x91", b"\x81", b"\xdd")))
        packed *= random.choice((10, 5000, 20_000))
    return bytes(packed)


def make_frames(random: Random, form: str) -> bytes:
    """Return one to four frames, most of them in the `form` of the connection."""
    kind, make = (BINARY, make_packed) if form == "msgpack" else (TEXT, make_text)
    return b"".join(
        random.choices(MAKERS, WEIGHTS)[0](random, make(random), kind)
        for _ in range(random.randint(1, 4))
    )


def _whole(_: Random, text: bytes, kind: int) -> bytes:
    return frame(kind, text)


def _fragmented(random: Random, text: bytes, kind: int) -> bytes:
    cut = random.randrange(len(text) + 1)
    return frame(kind, text[:cut], fin=False) + frame(CONTINUATION, text[cut:])


def _compressed(random: Random, text: bytes, kind: int) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    data = compressor.compress(text * random.choice((1, 1, 1 + BOMB // len(text))))
    return frame(kind | 0x40, (data + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4])


def _control(random: Random, _: bytes, __: int) -> bytes:
    return frame(random.choice((PING, PONG)), random.randbytes(random.choice((0, 5, 125))))


def _close(random: Random, _: bytes, __: int) -> bytes:
    return frame(CLOSE, random.choice((b"", b"\x03\xe8", b"\x03\xe8bye", random.randbytes(4))))


def _other(_: Random, text: bytes, kind: int) -> bytes:
    return frame(TEXT if kind == BINARY else BINARY, text)


def _spoiled(random: Random, text: bytes, _: int) -> bytes:
    opcode = random.randrange(256) & 0x7F
    data = bytearray(frame(opcode, text[:120], fin=random.random() < 0.7))
    if random.random() < 0.5:
        data[random.randrange(min(len(data), 8))] = random.randrange(256)
    return bytes(data)


MAKERS = (_whole, _fragmented, _compressed, _control, _close, _other, _spoiled)
WEIGHTS = (60, 10, 5, 10, 3, 2, 10)


class Outcome(NamedTuple):
    """Answers by kind, inputs a second, and resident bytes after WARM_UP and at the end."""

    seen: dict[str, int]
    rate: float
    before: int
    after: int


async def fuzz(inputs: int, seed: int) -> Outcome:
    """Throw `inputs` at sessions. Errors: FuzzFailure."""
    seen: dict[str, int] = {}
    hub = Hub([Instrument(symbol=s, name=s, base_price=100.0) for s in ("AAPL", "BRK.B", "MSFT")])
    gateway = Gateway(
        hub=hub,
        pool=Pool(10, 10),
        authenticator=Authenticator(secret=SECRET),
        directory=COMPLETE,
        max_symbols=2,
        command_rate=1000,
        budgets=Budgets(commands=Budget(1e9)),
    )
    baseline, started = 0, time.monotonic()
    async with trio.open_nursery() as nursery:
        await nursery.start(hub.run)
        nursery.start_soon(gateway.services.deadlines.run)
        nursery.start_soon(gateway.services.poller.run)
        for number in range(inputs):
            with trio.fail_after(10):
                await throw(
                    gateway, Random(f"{seed}/{number}"), seen, f"--seed {seed}, input {number}"
                )
            if number == WARM_UP:
                baseline = _resident()
            if number % 50_000 == 49_999:
                rate = number / (time.monotonic() - started)
                print(f"{number + 1} inputs, {rate:.0f}/s, {_resident() >> 20} MB", flush=True)
        rate, after = inputs / (time.monotonic() - started), _resident()
        if baseline and after - baseline > MEMORY_LIMIT:
            raise FuzzFailure(f"memory grew from {baseline >> 20} to {after >> 20} MB")
        if gateway.pool.sessions or hub.subscriptions:
            raise FuzzFailure("sessions or subscriptions are left")
        nursery.cancel_scope.cancel()
    return Outcome(seen, rate, baseline, after)


async def throw(gateway: Gateway, random: Random, seen: dict[str, int], where: str) -> None:
    """Run one session from its beginning to its end for one input."""
    ours, client = socket.socketpair()
    for end in (ours, client):
        end.setblocking(False)
    pool = gateway.pool
    pool.enter()
    pool.reserve()
    pool.reserve_for("ann")
    form, fields = random.choice(FORMS), random.choice((None, None, ("current_price",)))
    view = pool.views.take(form, fields)
    data = make_frames(random, form)
    deflate = random.random() < 0.5
    identity = Identity("ann", None, time.time() + 600)
    session = Session(gateway.services, ours, identity, view=view, deflate=deflate)
    pool.add(session)
    position = None
    if random.random() < 0.5:
        try:
            position = parse_position(make_resume(random, gateway.hub.epoch))
        except ValueError:
            seen["bad resume"] = seen.get("bad resume", 0) + 1
    try:
        selection = Selection([gateway.hub.topics["AAPL"]], [])
        session.begin(Admission(session.identity, selection, position=position, view=view))
        cut = random.randrange(len(data) + 1)  # frames arrive in any pieces
        await session._take(data[:cut])
        await session._take(data[cut:])
        session.outbox.flush()
        await trio.lowlevel.checkpoint()
        document = FormDocument(form, ",".join(fields or ()))
        if position is not None:
            # It may be right that the client has the quote.
            document.quotes["AAPL"] = {}
        _check(client, seen, document, resumed=position is not None)
    except Exception as error:
        raise FuzzFailure(f"{where}: {data!r}: {error!r}") from error
    finally:
        session.end()
        ours.close()
        client.close()


def _check(
    client: socket.socket, seen: dict[str, int], document: FormDocument, *, resumed: bool
) -> None:
    received = b""
    try:
        while part := client.recv(1 << 20):
            received += part
    except BlockingIOError:
        pass
    while taken := take_frame(received):
        first, payload, received = taken
        _check_frame(first, _inflated(first, payload), seen, document)
    if received:
        raise FuzzFailure("half a frame")
    if resumed and not any(each.get("recovered") for each in document.control[:1]):
        raise FuzzFailure(f"not the answer to a resume: {document.control}")


def _check_frame(first: int, payload: bytes, seen: dict[str, int], document: FormDocument) -> None:
    kind = first & 0xF
    if kind in (TEXT, BINARY):
        what = _check_message(document.read(kind, payload))
    elif kind == CLOSE:
        code = int.from_bytes(payload[:2])
        reason = payload[2:].decode()
        if reason and code not in CODES:
            raise FuzzFailure(f"undocumented close: {code} {reason}")
        what = f"close {code}"
    else:
        what = f"opcode {kind:#x}"
    seen[what] = seen.get(what, 0) + 1


def _check_message(message: Any) -> str:
    """Return the name of a message, which must be documented."""
    if isinstance(message, list):
        return f"array {message[0]}"
    if message["type"] not in TYPES or message.get("code", "bad_json") not in ERRORS:
        raise FuzzFailure(f"undocumented: {message}")
    if "recovered" in message:
        if set(message["recovered"]) != {"AAPL"}:
            raise FuzzFailure(f"not the answer to a resume: {message}")
        return f"recovered {message['recovered']['AAPL']}"
    return str(message.get("code", message["type"]))


def _inflated(first: int, payload: bytes) -> bytes:
    if not first & 0x40:
        return payload
    return zlib.decompressobj(-15).decompress(payload + b"\x00\x00\xff\xff")


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
