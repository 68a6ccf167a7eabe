"""Runs a core over a driver's connections, until the server refuses it for good."""

from collections.abc import Callable
from typing import NoReturn

from quotestream.core import TOKEN_EXPIRED, Core, Ending
from quotestream.credential import Credential
from quotestream.decoder import Message
from quotestream.driver import Closed, Driver, Socket
from quotestream.errors import BadMessage
from server.reconnecting import ConnectionFailed

Listener = Callable[[Message], None]
"""Hears each message of the JSON form, once it is applied. BadMessage ends the connection, and other
errors end the run.
"""


class Running:
    """One client: its core, its credential, and the connection that it has at the moment.

    After a lost connection, it resumes from the core's position. It first waits a random time
    (exponential back-off, full jitter), or longer if the server asks for that. The listener then gets
    a message of type `connection`. A redirection is a refusal: the token is sent to one address only.
    """

    def __init__(
        self, core: Core, url: str, credential: Credential, driver: Driver, listener: Listener
    ) -> None:
        self._core = core
        self._url = url
        self._credential = credential
        self._driver = driver
        self._listener = listener
        self._socket: Socket | None = None

    async def run(self) -> NoReturn:
        """Keep the core up to date. Errors: Refused; ValueError for a token that cannot be sent; the
        token source's and the listener's own.
        """
        await self._credential.renew()
        while True:
            ending = await self._connection()
            if ending.refusal and not (ending.renewable and await self._credential.renew()):
                self._core.refuse(ending.refusal)
                raise ending.refusal
            wait = self._core.wait(ending, self._driver.now())
            self._listener(
                {"type": "connection", "problem": ending.problem, "retry_in": round(wait, 3)}
            )
            await self._driver.sleep(wait)

    def flush(self) -> None:
        """Send the commands that wait. If the connection loses some, the next one asks for what is
        wanted then.
        """
        if self._socket is not None:
            for frame in self._core.outgoing():
                self._socket.send(frame)

    async def _connection(self) -> Ending:
        """Make one connection and read until it ends."""
        secrets = sum(len(value) for _, value in self._credential.headers())
        target, driver = self._core.target(self._url, secrets), self._driver
        offered = self._core.wanted.subprotocols
        try:
            async with driver.open(target, self._credential.headers, offered) as socket:
                self._core.opened(socket.subprotocol, driver.now())
                self._socket = socket
                self._listener({"type": "connected"})
                self.flush()
                while True:
                    data = await socket.receive()
                    self._credential.accepted()
                    for message in self._core.receive(data, driver.now()):
                        self._listener(message)
                    self.flush()
        except ConnectionFailed as failed:
            return self._core.failed(failed)
        except Closed as closed:
            # A server that accepts and says that the token is not good has not accepted it.
            if closed.code != TOKEN_EXPIRED:
                self._credential.accepted()
            return self._core.closed(closed.code, closed.reason)
        except BadMessage as bad:
            return self._core.broken(str(bad))
        finally:
            self._socket = None
