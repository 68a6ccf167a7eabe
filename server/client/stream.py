"""A stream of quotes that reconnects after a server's restart."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn
from urllib.parse import quote

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from server.client.decoder import BadMessage, Decoder, subprotocols
from server.client.document import Document
from server.quotes.instrument import normalize_symbol
from server.quotes.view import Form
from server.websocket_client import Backoff, ConnectionFailed, open_connection

MAX_REQUEST = 16 * 1024 - 512
"""Bytes of a request line and its Authorization header; the rest of 16 KiB, a server's limit, is for
the headers that trio-websocket and proxies add.
"""

MAX_RESUME = 8 * 1024
"""Characters of a position as it is sent. The server sends the full quote of each symbol that does not
fit.
"""

EVERYTHING = "*"
"""The symbol that stands for all symbols."""

UNAUTHORIZED = 401

PASSING = {408, 425, 429}
"""Statuses below 500 that time may cure. Other statuses below 500 are about the request itself."""

TOO_LONG = {414, 431}
"""Statuses of a request whose `resume` may be what made it too long."""

TOKEN_EXPIRED = 4401
"""The close code for an expired token."""


class StreamRefused(Exception):
    """The server refuses this request for good. The message gives the reason."""


class TokenExpired(StreamRefused):
    """The server closed the connection because its token expired."""


Listener = Callable[[Document, dict[str, Any]], None]

TokenSource = Callable[[], Awaitable[str]]
"""Returns a token that is valid now."""


class Credential:
    """A token that no `repr`, traceback or log line shows, and where the next one comes from."""

    __slots__ = ("_renewed", "_source", "_token")

    def __init__(self, token: str | TokenSource) -> None:
        """Errors: ValueError, without the token, for one that a header cannot hold."""
        self._source: TokenSource | None = None
        self._renewed = False
        self._token = ""
        if isinstance(token, str):
            self._set(token)
        else:
            self._source = token

    async def renew(self) -> bool:
        """Ask the source for a token: at the start, then once between two accepted connections. Return
        whether it was asked. Errors: ValueError, as above, and the source's own.
        """
        if self._source is None or self._renewed:
            return False
        self._renewed = self._token != ""
        self._set(await self._source())
        return True

    def accepted(self) -> None:
        """Note that the server took the token: the source may be asked again."""
        self._renewed = False

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return the request's `Authorization` header, or nothing without a token."""
        return [(b"Authorization", f"Bearer {self._token}".encode())] if self._token else []

    def _set(self, token: str) -> None:
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise ValueError("a token is ASCII characters without spaces")
        self._token = token


class Wanted:
    """The symbols and fields to ask for, and the form of the messages.

    Arguments:
        format: None for the compact form if the server has it, otherwise JSON.
        fields: the fields of a quote to get; none for all.
    """

    def __init__(
        self, symbols: Sequence[str], format: Form | None = None, fields: Sequence[str] = ()
    ) -> None:
        self.symbols = [normalize_symbol(symbol) for symbol in symbols]
        self.fields = fields
        self.subprotocols = subprotocols(format)

    def query(self, held: Iterable[str]) -> str:
        """Return the request's query, without a position. `held` are the symbols of the document: if
        two instruments exchanged their symbols, only one of them was told as renamed.
        """
        symbols = self.symbols
        if EVERYTHING not in symbols:
            symbols = [*dict.fromkeys([*symbols, *held])]
        fields = f"&fields={quote(','.join(self.fields), safe=',')}" if self.fields else ""
        return f"symbols={quote(','.join(symbols), safe=',*')}{fields}"

    def rename(self, new: Mapping[str, str]) -> None:
        """Ask for the new symbols of renamed instruments from the next connection on."""
        self.symbols = [new.get(symbol, symbol) for symbol in self.symbols]


async def follow(
    url: str,
    token: str | TokenSource,
    symbols: Sequence[str],
    listener: Listener,
    *,
    format: Form | None = None,
    fields: Sequence[str] = (),
) -> NoReturn:
    """Keep a document of `symbols` and call `listener(document, message)` after each message.

    The listener gets messages of the JSON form, whatever the server sends.

    After a lost connection, the client resumes from its position. It first waits a random time
    (exponential back-off, full jitter), or longer if the server asks for that. If a connection is lost
    or cannot be made, the listener gets a message of type `connection`. A redirection is a refusal: the
    token is sent to this address only.

    Arguments:
        token: a token, or a function that returns one. The function is called at the start, and once
            when the server says that the token is not valid any more.
        format: the form of the server's messages. None chooses compact if the server has it,
            otherwise JSON.
        fields: the fields of a quote to get; none for all.

    Errors: StreamRefused; ValueError for a token that cannot be sent; what `token` raises.
    """
    credential = Credential(token)
    # A traceback with local variables would show the token in this frame.
    del token
    await credential.renew()
    document, backoff = Document(), Backoff()
    wanted, resume = Wanted(symbols, format, fields), True

    def listen(document: Document, message: dict[str, Any]) -> None:
        wanted.rename(message.get("renamed", {}))
        listener(document, message)

    while True:
        target = f"{url}?{wanted.query(document.quotes)}"
        asked, problem = 0.0, "the connection ended"
        refusal: StreamRefused | None = None
        resumed = _resuming(target, document, credential) if resume else target
        resume, renewable = True, False
        try:
            async with open_connection(resumed, credential.headers, wanted.subprotocols) as socket:
                credential.accepted()
                backoff.accepted()
                decoder = Decoder(document, socket.subprotocol, selected=bool(fields))
                asked = await _read(socket, decoder, document, listen)
        except ConnectionFailed as failed:
            status = failed.status
            asked, problem = failed.retry_after, str(failed)
            resume, renewable = status not in TOO_LONG, status == UNAUTHORIZED
            if is_final(status) and (resume or resumed == target):
                refusal = StreamRefused(problem)
        except TokenExpired as expired:
            refusal, renewable, problem = expired, True, str(expired)
        except BadMessage as bad:
            problem = str(bad)
        if refusal is not None and not (renewable and await credential.renew()):
            raise refusal
        wait = backoff.next(asked)
        listener(document, {"type": "connection", "problem": problem, "retry_in": wait})
        await trio.sleep(wait)


def is_final(status: int) -> bool:
    """Return whether a handshake's HTTP status is about the request itself. Zero stands for none."""
    return 0 < status < 500 and status not in PASSING


def _resuming(target: str, document: Document, credential: Credential) -> str:
    """Return `target` with the part of the document's position for which the request has room."""
    used = len(target) + len("&resume=") + sum(len(value) for _, value in credential.headers())
    position = quote(document.position, safe=",:=")
    room = max(0, min(MAX_RESUME, MAX_REQUEST - used))
    if len(position) > room:
        position = position[: room + 1].rpartition(",")[0]
    return f"{target}&resume={position}" if position else target


async def _read(
    socket: WebSocketConnection, decoder: Decoder, document: Document, listener: Listener
) -> float:
    """Read until the connection ends, and return the seconds that the server asks to stay away.

    Errors: BadMessage, TokenExpired.
    """
    wait = 0.0
    try:
        while True:
            for message in decoder.messages(await socket.get_message()):
                if message["type"] == "quotes_patch":
                    if missed := document.apply(message):
                        resync = decoder.command(action="resync", symbols=missed)
                        await socket.send_message(resync)
                elif message["type"] == "ack" and message["action"] == "resume":
                    document.keep(message["recovered"].keys())
                elif message["type"] == "reconnect":
                    wait = message["after_ms"] / 1000
                listener(document, message)
    except ConnectionClosed as closed:
        if closed.reason is not None and closed.reason.code == TOKEN_EXPIRED:
            raise TokenExpired("the token expired") from None
        return wait
