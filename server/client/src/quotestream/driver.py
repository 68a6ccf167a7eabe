"""The interface of what a client needs of the library that runs it: connections, tasks and time."""

from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

Headers = Callable[[], Sequence[tuple[bytes, bytes]]]
"""Returns a request's headers. A traceback with local variables does not show their secrets so."""

ABNORMAL = 1006
"""The code of a connection that broke without a close frame (RFC 6455 §7.4.1)."""


class Closed(Exception):
    """The connection has ended. `code` and `reason` are the server's, or ABNORMAL."""

    def __init__(self, code: int = ABNORMAL, reason: str = "") -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


class Socket(Protocol):
    """An open WebSocket connection, which answers pings and looks for a silent server by itself."""

    @property
    def subprotocol(self) -> str | None:
        """Return the server's choice."""

    def send(self, data: str | bytes) -> None:
        """Queue one message. The driver sends it, so a caller that is cancelled leaves no half of a
        message behind. After the end of the connection nothing happens: `receive` tells of it.
        """

    async def receive(self) -> str | bytes:
        """Return the next message. Errors: Closed; ConnectionFailed if the server is silent."""


class Event(Protocol):
    """Something that happens once."""

    def set(self) -> object:
        """Let all tasks that wait go on."""

    async def wait(self) -> object:
        """Wait until it happens."""


class Beside(Protocol):
    """A task that runs beside a block."""

    async def start(self, task: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start the task. Its exceptions come out of `stop`."""

    async def stop(self) -> None:
        """Cancel the task and wait for its end."""


class Driver(Protocol):
    """A library that runs coroutines."""

    def now(self) -> float:
        """Return the seconds of a steady clock."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""

    def event(self) -> Event:
        """Return a new event."""

    def beside(self) -> Beside:
        """Return a place for one task."""

    def open(
        self, url: str, headers: Headers, subprotocols: Sequence[str]
    ) -> AbstractAsyncContextManager[Socket]:
        """Connect until the block ends. Errors: ConnectionFailed, also from within the block."""
