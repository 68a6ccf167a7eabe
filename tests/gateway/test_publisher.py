"""A publisher's session: what it passes on, when it stops reading, and what it answers."""

import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio

from server.fanout.hub import Hub
from server.gateway.auth import Identity
from server.gateway.handshake import Admission, Publisher
from server.gateway.publisher import MAX_UNANSWERED, PublisherSession
from server.gateway.selection import Selection
from server.intake.answer import Answer, Rejection
from server.intake.batch import Batch, OnAnswer
from server.intake.objects import MAX_BATCH_BYTES
from tests.frames import take_frame
from tests.gateway.harness import SessionHarness
from tests.gateway.wire import frame

TEXT = 1


class StoppedDesk:
    """Takes everything, and answers when the test says so."""

    def __init__(self) -> None:
        self.batches: list[tuple[Batch, OnAnswer]] = []
        self._more = trio.Event()

    async def offer(self, batch: Batch, on_answer: OnAnswer) -> None:
        self.batches.append((batch, on_answer))
        self._more.set()

    async def wait_frames(self, number: int) -> None:
        while self.frames < number:
            self._more = trio.Event()
            await self._more.wait()

    async def put(self, batch: Batch, on_answer: OnAnswer) -> None:
        await trio.lowlevel.checkpoint()
        await self.offer(batch, on_answer)

    @property
    def frames(self) -> int:
        return sum(len(batch.bodies) for batch, _ in self.batches)

    def answer_all(self) -> None:
        for batch, on_answer in self.batches:
            on_answer(Answer(accepted=len(batch.bodies)))
        self.batches.clear()


class Press:
    """A publisher's session on a pair of sockets, and its client's end."""

    def __init__(self, harness: SessionHarness, nursery: trio.Nursery) -> None:
        self.desk = StoppedDesk()
        server, self.client = socket.socketpair()
        for end in (server, self.client):
            end.setblocking(False)
        gateway = harness.gateway
        gateway.pool.enter()
        gateway.pool.reserve()
        gateway.pool.reserve_for("press")
        identity = Identity("press", "publisher", time.time() + 600, ("AAPL",))
        self.session = PublisherSession(gateway.services, server, identity, b"", self.desk)
        gateway.pool.add(self.session)
        selection = Selection([], [])
        names = Publisher("sip", "7")
        self.session.begin(Admission(identity, selection, publisher=names))
        nursery.start_soon(gateway.services.poller.run)
        nursery.start_soon(self.session.run)

    async def send(self, *bodies: bytes) -> None:
        for body in bodies:
            self.client.send(frame(TEXT, body))
        await trio.testing.wait_all_tasks_blocked(0.02)

    def read(self) -> list[dict[str, Any]]:
        received, messages = self.client.recv(1_000_000), []
        while taken := take_frame(received):
            _, payload, received = taken
            messages.append(json.loads(payload))
        return messages


@asynccontextmanager
async def open_press() -> AsyncIterator[tuple[Press, trio.Nursery]]:
    """Run a publisher's session."""
    harness = SessionHarness(Hub())
    async with trio.open_nursery() as nursery:
        press = Press(harness, nursery)
        yield press, nursery
        nursery.cancel_scope.cancel()
    press.session.end()
    for end in (press.session.outbox.sock, press.client):
        end.close()
    harness.end()


async def test_socket_is_left_unread_after_64_unanswered_frames() -> None:
    """An answer makes room for as many frames as it answers."""
    async with open_press() as (press, _):
        await press.send(*[b"{}"] * (MAX_UNANSWERED + 30))
        assert press.desk.frames == MAX_UNANSWERED
        press.desk.answer_all()
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert press.desk.frames == 30
        press.desk.answer_all()
        assert press.read()[-1]["frames"] == MAX_UNANSWERED + 30


async def test_frames_that_come_meanwhile_are_one_batch() -> None:
    """While two batches are without an answer, the socket is left unread."""
    async with open_press() as (press, _):
        for number in range(5):
            await press.send(b"%d" % number)
        assert [batch.bodies for batch, _ in press.desk.batches] == [[b"0"], [b"1"]]
        _, on_answer = press.desk.batches.pop(0)
        on_answer(Answer())
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert [batch.bodies for batch, _ in press.desk.batches] == [[b"1"], [b"2", b"3", b"4"]]


@pytest.mark.parametrize("frames", [1, 2])
async def test_bytes_without_an_answer_are_bounded(frames: int) -> None:
    """Few large frames stop the reading, too."""
    async with open_press() as (press, nursery):
        press.client.setblocking(True)
        # Made before: to mask a frame takes longer than the pause in which nothing may be read.
        large = frame(TEXT, b" " * (MAX_BATCH_BYTES // frames))

        def send() -> None:
            for _ in range(6):
                press.client.sendall(large)

        nursery.start_soon(partial(trio.to_thread.run_sync, send, abandon_on_cancel=True))
        for _ in range(3):
            with trio.fail_after(10):
                await press.desk.wait_frames(frames)
                await trio.testing.wait_all_tasks_blocked(0.1)
            assert press.desk.frames == frames
            press.desk.answer_all()


async def test_acknowledgement_counts_all_frames_so_far() -> None:
    """A rejection comes once. A batch has the publisher's names, its limits and its first frame."""
    async with open_press() as (press, _):
        await press.send(b"{}", b"[]")
        await press.send(b"5")
        batches = [batch for batch, _ in press.desk.batches]
        assert batches == [
            Batch([b"{}", b"[]"], "sip", "7", ("AAPL",), 1),
            Batch([b"5"], "sip", "7", ("AAPL",), 3),
        ]
        for (_, on_answer), late in zip(press.desk.batches, (2, 1), strict=True):
            on_answer(Answer(late=late, rejected=[Rejection(1, "bad_json", "no", late)]))
        first, second = press.read()
        assert (first["frames"], first["late"], len(first["rejected"])) == (2, 2, 1)
        assert (second["frames"], second["late"], len(second["rejected"])) == (3, 3, 1)


async def test_fragments_make_one_object() -> None:
    """However a message is cut, it is one frame of the count."""
    async with open_press() as (press, _):
        press.client.send(frame(TEXT, b'{"a', fin=False) + frame(0, b'":1}'))
        await trio.testing.wait_all_tasks_blocked(0.02)
        ((batch, _),) = press.desk.batches
        assert batch.bodies == [b'{"a":1}']


async def test_answer_to_a_publisher_that_left_is_dropped() -> None:
    """The batch counts all the same, and the session ends."""
    async with open_press() as (press, _):
        await press.send(b"{}")
        press.client.close()
        await trio.testing.wait_all_tasks_blocked(0.02)
        press.session.end()
        press.desk.answer_all()
