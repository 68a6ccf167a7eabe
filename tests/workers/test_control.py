"""The control channel between a supervisor and a worker."""

import signal
import socket
import sys
import textwrap
from contextlib import aclosing

import pytest
import structlog
import trio

from server.histogram import DELIVERY_BUCKETS
from server.pacing import wait_until
from server.workers.control import (
    MAX_LINE,
    Channel,
    Collect,
    FromWorker,
    Metrics,
    Questions,
    Retire,
    Sample,
    SendAway,
)
from server.workers.host_metrics import HostPage
from server.workers.process import Launch
from server.workers.restarter import WorkerRestarter, describe_exit
from server.workers.scaler import measure
from server.workers.stats import SupervisorStats
from server.workers.worker import SupervisorLink, WorkerCallbacks

SAMPLE = Sample(places=1, capacity=2, cpu=0.5, delivered=[3])

QUESTIONS = 2000
"""More than the kernel holds for a process that does not read."""

DEEP = b"[" * 20_000 + b"]" * 20_000

INVALID = {
    "not JSON": b"junk",
    "nothing": b"",
    "unknown type": b'{"type":"news"}',
    "wrong field": b'{"type":"sample","places":"many"}',
    "not UTF-8": b"\xff",
    "type that is not UTF-8": b'{"type":"\xff"}',
    "nested too deeply": b'{"type":"sample","places":1,"x":' + DEEP + b"}",
    "negative places": b'{"type":"sample","places":-1,"capacity":2,"cpu":0,"delivered":[]}',
    "huge places": b'{"type":"sample","places":9%s,"capacity":2,"cpu":0,"delivered":[]}' % (b"0" * 400),
    "negative time": b'{"type":"sample","places":1,"capacity":2,"cpu":-1,"delivered":[]}',
    "endless time": b'{"type":"sample","places":1,"capacity":2,"cpu":1e999,"delivered":[]}',
    "negative count": b'{"type":"sample","places":1,"capacity":2,"cpu":0,"delivered":[-1]}',
    "too long": b"x" * (2 * MAX_LINE),
}  # fmt: skip


@pytest.mark.parametrize("line", INVALID.values(), ids=list(INVALID))
async def test_line_that_is_not_a_message_is_left_out(line):
    """It does not end the reader, whatever it holds. The next message is read, and the log says why."""
    ours, theirs = socket.socketpair()
    channel: Channel[FromWorker] = Channel(ours, FromWorker)
    sender: Channel[FromWorker] = Channel(theirs, FromWorker)
    received: list[FromWorker] = []

    async def send() -> None:
        await trio.SocketStream(trio.socket.from_stdlib_socket(theirs)).send_all(line + b"\n")
        await sender.send(SAMPLE)
        sender.close()

    with structlog.testing.capture_logs() as logs, trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            received += [message async for message in channel.receive()]
    channel.close()
    assert received == [SAMPLE]
    assert [each["event"] for each in logs] == ["not understood on the control channel"]


async def test_supervisor_s_odd_messages_do_not_end_a_worker(nursery):
    """A number that makes no sense is left out, and a second order to retire changes nothing."""
    ours, theirs = socket.socketpair()
    supervisor: Channel[FromWorker] = Channel(ours, FromWorker)
    worker = SupervisorLink(1, theirs.detach())
    told: list[object] = []

    async def retire() -> None:
        told.append("retire")

    async def answer(text: str) -> str:
        return text

    callbacks = WorkerCallbacks(
        sample=lambda: SAMPLE,
        metrics=lambda: "page",
        retire=retire,
        send_away=told.append,
        answer=answer,
    )
    nursery.start_soon(worker.run, callbacks)
    for message in (SendAway(-1), SendAway(2**63), Retire(), Retire(), SendAway(3), Collect(7)):
        await supervisor.send(message)
    with trio.fail_after(10):
        async with aclosing(supervisor.receive()) as received:
            async for answered in received:
                if answered == Metrics(7, "page"):
                    break
    assert sorted(map(str, told)) == ["3", "retire"]
    supervisor.close()


async def test_frozen_end_gets_questions_that_are_given_up(autojump_clock):
    """The kernel holds a few hundred for it. Further ones wait no longer than an answer may take, and
    leave no half line before the next message.
    """
    ours, theirs = socket.socketpair()
    supervisor: Channel[FromWorker] = Channel(ours, FromWorker)
    frozen: Channel[Collect] = Channel(theirs, Collect)
    questions: Questions[FromWorker, str] = Questions(supervisor, 1.0)
    with trio.fail_after(2 * QUESTIONS):
        for _ in range(QUESTIONS):
            with pytest.raises(trio.TooSlowError):
                await questions.ask(Collect)
    received: list[Collect] = []

    async def thaw() -> None:
        received.extend([each async for each in frozen.receive()])

    with structlog.testing.capture_logs() as logs, trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(thaw)
            await supervisor.send(Collect(QUESTIONS))
            supervisor.close()
    frozen.close()
    assert 0 < len(received) < QUESTIONS
    assert received == [*map(Collect, range(len(received) - 1)), Collect(QUESTIONS)]
    assert len(logs) <= 1


WORKER = """
import json, socket, sys

channel = socket.socket(fileno=int(sys.argv[1]))
def tell(**message):
    channel.sendall(json.dumps(message).encode() + b"\\n")
sample = {"type": "sample", "capacity": 0, "cpu": 0.0}
tell(**sample, places=1, delivered=[1])
channel.sendall(b'{"type":"\\xff"}\\n' + b"x" * 20_000_000 + b"\\n")
tell(**sample, places=2, delivered=[2**50] * BUCKETS)
tell(**sample, places=3, delivered=[0] * BUCKETS)
for line in channel.makefile():
    asked = json.loads(line)
    tell(type="metrics", id=99, page="nobody asked")
    tell(type="metrics", id=asked["id"], page=PAGE)
"""
"""A worker that sends odd messages, then answers with PAGE."""


@pytest.mark.parametrize(
    "page", ["}{", 'a{b="', "a b c d e", "# TYPE a nonsense\na 1", "# EOF\x00", "a 1e", "\u2028 1"]
)
async def test_worker_s_odd_messages_do_not_end_its_supervisor(page, nursery):
    """The supervisor measures the load and makes a page for `/metrics`, in which the worker is down."""
    script = textwrap.dedent(WORKER).replace("BUCKETS", str(len(DELIVERY_BUCKETS) + 1))
    script = script.replace("PAGE", repr(page))
    launch = Launch(
        command=lambda _, fd: [sys.executable, "-c", script, str(fd)], environment={}, silence=60
    )
    stats = SupervisorStats()
    changed = trio.lowlevel.ParkingLot()
    restarter = WorkerRestarter(1, launch, changed, lambda *_: None, stats)
    nursery.start_soon(restarter.run)
    with trio.fail_after(30):
        await wait_until(lambda: bool(restarter.worker and restarter.worker.places == 3))
        assert restarter.worker
        load = measure([restarter.worker])
        assert load.connections == 3
        assert load.latency == 0
        shown = await HostPage({1: restarter}, stats).render()
    assert 'market_data_worker_up{worker="1"}' in shown
    assert stats.restarts == 0
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (None, {"code": None}),
        (3, {"code": 3}),
        (-signal.SIGKILL, {"signal": "SIGKILL"}),
        (-signal.SIGRTMIN - 1, {"signal": str(signal.SIGRTMIN + 1)}),
    ],
)
def test_every_exit_code_has_a_description(code, told):
    """A worker that a signal without a name ended does not end its supervisor."""
    assert describe_exit(code) == told
