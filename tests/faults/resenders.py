"""Publishers that send again what was not acknowledged, by each way in, and always the same objects."""

import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from typing import Any

import pytest
from redis import Redis as RedisClient
from redis.exceptions import RedisError
from websockets.exceptions import WebSocketException

from tests.faults.cluster import LEASE
from tests.processes import LONGEST_PAUSE, ServerProcess, eventually
from tests.publisher import post, publishing, receive

KEY = "feed"
"""The key of the stream, and so the name of its source. All ways use it: their numbers are the same."""

OBJECTS = 10
"""Objects of one batch for AAPL, beside one for a symbol that no instance has in memory."""

PATIENCE = 20 * LEASE
"""Seconds in which each batch has to be taken."""

UNANSWERED = 4
"""Frames that a publisher sends before it waits for an answer."""

AGAIN = {"store_unavailable", "internal_error"}
"""The codes after which an object is sent again."""

Objects = Sequence[dict[str, Any]]


def batches_of(number: int, cold: Sequence[str]) -> list[Objects]:
    """Return the input: trades with numbers or ids, a microsecond apart.

    `cold`: the symbols that come once in a while.
    """
    start = time.time_ns() // 1000 - 10_000_000
    return [
        [_trade(start, each) for each in range(index * OBJECTS, (index + 1) * OBJECTS)]
        + [{"symbol": cold[index % len(cold)], "price": 50 + index, "size": 3, "seq": index,
            "ts": start + index}]
        for index in range(number)
    ]  # a table # fmt: skip


def _trade(start: int, number: int) -> dict[str, Any]:
    # The last price is neither the highest nor the lowest.
    name = {"seq": number} if number % 3 else {"id": f"t-{number}"}
    price = 100 + number * 37 % 101 / 100
    return {"symbol": "AAPL", "price": price, "size": 1, "ts": start + number, **name}


class Resenders:
    """Three publishers. Each batch comes by two of the three ways in, to any instance.

    `servers` are those that run. `allow` says up to which batch the publishers may go.
    """

    WAYS = 3

    def __init__(self, batches: Sequence[Objects], redis_port: int, seed: int) -> None:
        self.batches = batches
        self.servers: list[ServerProcess] = []
        self.problems: list[BaseException] = []
        self.done = [0] * self.WAYS
        self._allowed = 0
        self._changed = threading.Condition()
        self._random = random.Random(seed)
        self._redis_port = redis_port
        # The way that leaves a batch out.
        self._without = [self._random.randrange(self.WAYS) for _ in batches]
        senders: list[Callable[[random.Random], None]] = [
            self._post_all,
            self._stream_all,
            self._send_all,
        ]
        self._threads = [
            threading.Thread(target=self._run, args=(sender, seed + number), daemon=True)
            for number, sender in enumerate(senders)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def allow(self, number: int) -> None:
        """Let the publishers go on to this batch."""
        with self._changed:
            self._allowed = number
            self._changed.notify_all()

    def wait_done(self, number: int) -> None:
        """Wait until each publisher is through so many batches."""
        eventually(lambda: bool(self.problems) or min(self.done) >= number, PATIENCE)
        assert not self.problems, self.problems

    def join(self) -> None:
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        assert not self.problems, self.problems

    def _run(self, sender: Callable[[random.Random], None], seed: int) -> None:
        try:
            sender(random.Random(seed))
        except (Exception, pytest.fail.Exception) as problem:
            self.problems.append(problem)

    def _mine(self, way: int) -> Iterator[Objects]:
        """Return the batches of one way in, as far as it may go. The last one is done with the next."""
        for number, batch in enumerate(self.batches):
            with self._changed:
                self._changed.wait_for(lambda: self._allowed > number)  # noqa: B023 (called here)
            if self._without[number] != way:
                yield batch
            self.done[way] = number + 1

    def _server(self, chance: random.Random) -> ServerProcess:
        return chance.choice(self.servers)

    def _post_all(self, chance: random.Random) -> None:
        """`POST /prices`: an answer other than 200 takes nothing for sure."""
        for batch in self._mine(0):
            rest = batch
            for _ in _attempts():
                try:
                    answer = post(self._server(chance), [*rest], Source=KEY)
                except (OSError, HTTPException, ValueError):
                    continue
                if answer.status == 200:
                    rest = [rest[each["line"] - 1] for each in _again(answer.body["rejected"])]
                    if not rest:
                        break

    def _stream_all(self, chance: random.Random) -> None:
        """`XADD`, again unless Redis says that it has the entry; some come twice."""
        with RedisClient(port=self._redis_port, socket_timeout=LEASE) as redis:
            for batch in self._mine(1):
                for each in batch:
                    for _ in _attempts():
                        try:
                            redis.xadd(KEY, {"d": json.dumps(each)})
                            if chance.random() < 0.9:
                                break
                        except RedisError:
                            continue

    def _send_all(self, chance: random.Random) -> None:
        """`/ws/prices`: what has no answer when a connection ends is sent on the next one."""
        frames, batches = list[Objects](), self._mine(2)
        for _ in _attempts():
            try:
                with publishing(self._server(chance), source=KEY) as connection:
                    if self._exchange(connection, frames, batches):
                        return
            except (OSError, WebSocketException):
                continue

    def _exchange(self, connection: Any, frames: list[Objects], batches: Iterator[Objects]) -> bool:
        """Send all frames; `frames` are those without an answer. Return True after the last one."""
        for frame in frames:
            connection.send(json.dumps(frame))
        acked = 0
        while True:
            following = next(batches, None) if len(frames) < UNANSWERED else None
            if following is not None:
                frames.append(following)
                connection.send(json.dumps(following))
            elif not frames:
                return True
            else:
                answer = receive(connection)
                # A server that stops says so in another message.
                if answer["type"] == "ack":
                    again = self._settle(frames, answer["frames"] - acked, answer)
                    acked = answer["frames"]
                    if again:
                        frames.append(again)
                        connection.send(json.dumps(again))

    @staticmethod
    def _settle(frames: list[Objects], number: int, answer: dict[str, Any]) -> Objects:
        """Take out the frames that are answered. Return their objects that have to come again."""
        taken = frames[:number]
        del frames[:number]
        first = answer["frames"] - number + 1
        return [taken[e["frame"] - first][e["line"] - 1] for e in _again(answer["rejected"])]


def _again(rejected: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rejections of objects that are sent again. Errors: AssertionError for others."""
    assert {each["code"] for each in rejected} <= AGAIN, rejected
    return [*rejected]


def _attempts() -> Iterator[None]:
    deadline = time.monotonic() + PATIENCE
    yield
    while time.monotonic() < deadline:
        time.sleep(LONGEST_PAUSE)
        yield
    raise AssertionError("a batch was never taken")


@contextmanager
def running(resenders: Resenders) -> Iterator[Resenders]:
    """Start the publishers, and let none wait at the end."""
    resenders.start()
    try:
        yield resenders
    finally:
        resenders.allow(len(resenders.batches))
