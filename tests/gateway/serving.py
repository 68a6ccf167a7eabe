"""A gateway on a real port in the test's own process, and clients that write raw bytes to it."""

import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from server.fanout.hub import Hub
from server.gateway.auth import Authenticator
from server.gateway.budgets import Budget, Budgets
from server.gateway.gateway import Gateway
from server.gateway.pool import Pool
from server.process.binding import bind
from tests.fanout.peer import instruments
from tests.frames import take_frame
from tests.gateway.harness import COMPLETE, READ_CUSHION
from tests.gateway.wire import head
from tests.processes import SECRET, TIMEOUT, make_token

RSV1 = 0x40
"""The bit of a compressed frame."""


class Broken:
    """A directory with a fault."""

    complete = False

    async def list_symbols(self, symbols: Sequence[str], payer: object = None) -> Sequence[str]:
        raise RuntimeError("the directory is broken")


class Client:
    """One connection, and what came on it that was not looked at yet."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.received = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def head(self) -> list[str]:
        """Return the lines of the answer's head."""
        while b"\r\n\r\n" not in self.received:
            await self._receive()
        lines, _, self.received = self.received.partition(b"\r\n\r\n")
        return lines.decode().split("\r\n")

    async def frame(self) -> tuple[int, bytes]:
        """Return the next frame's first byte and payload, decompressed (RFC 7692 §7.2.2)."""
        while (taken := take_frame(self.received)) is None:
            await self._receive()
        first, payload, self.received = taken
        if first & RSV1:
            payload = zlib.decompressobj(-15).decompress(payload + b"\x00\x00\xff\xff")
        return first, payload

    async def rest(self) -> bytes:
        """Return all that comes until the server closes."""
        with trio.fail_after(TIMEOUT):
            while data := await self.stream.receive_some():
                self.received += data
        return self.received

    async def _receive(self) -> None:
        with trio.fail_after(TIMEOUT):
            data = await self.stream.receive_some()
        assert data, "the server closed the connection"
        self.received += data


class Served:
    """A gateway that serves a hub with AAPL, and its port."""

    def __init__(self, nursery: trio.Nursery, **options: Any) -> None:
        self.nursery = nursery
        self.hub = Hub(instruments("AAPL"))
        self.budgets = Budgets(failures=Budget(0.001, burst=1e6))
        self.gateway = Gateway(
            hub=self.hub,
            pool=Pool(3, 2),
            authenticator=Authenticator(secret=SECRET),
            directory=options.pop("directory", COMPLETE),
            max_symbols=10,
            command_rate=50,
            budgets=self.budgets,
            **options,
        )
        (self.listener,) = bind("127.0.0.1", 0, setting="")
        self.port = self.listener.getsockname()[1]
        self.clients: list[Client] = []
        self.ended = trio.Event()

    @property
    def charged(self) -> int:
        """Return the failures that the local address was charged for."""
        return round((1e6 - self._left("127.0.0.1")) / 1000)

    def _left(self, key: str) -> float:
        return 1e6 - self.budgets.failures.wait(key, 1e9)

    async def start(self) -> None:
        """Begin to serve."""
        await self.nursery.start(self.hub.run)
        await self.nursery.start(self._serve)

    async def _serve(self, **task_status: Any) -> None:
        await self.gateway.serve([self.listener], **task_status)
        self.ended.set()

    async def connect(self) -> Client:
        client = Client(await trio.open_tcp_stream("127.0.0.1", self.port))
        self.clients.append(client)
        return client

    async def ask(self, query: str = "", **headers: str | None) -> Client:
        """Return a client that has sent a good handshake."""
        client = await self.connect()
        path = f"/ws/quotes?{query}&token={make_token('ann')}"
        await client.send(head(path, "GET", **headers))
        return client


@asynccontextmanager
async def serving(*, at_once: bool = True, **options: Any) -> AsyncIterator[Served]:
    """Serve until the end of the block, from its beginning or later."""
    async with trio.open_nursery() as nursery:
        served = Served(nursery, **options)
        try:
            if at_once:
                await served.start()
            yield served
        finally:
            nursery.cancel_scope.cancel()
            served.listener.close()
            for client in served.clients:
                client.stream.socket.close()


async def until(is_true: Callable[[], object]) -> None:
    """Return once a condition holds."""
    deadline = trio.current_time() + TIMEOUT
    while not is_true():
        assert trio.current_time() < deadline
        await trio.testing.wait_all_tasks_blocked(READ_CUSHION)
