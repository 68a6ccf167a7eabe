"""A stream of quotes for the commands: a listener that hears every message, on trio."""

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from quotestream.changes import quote_of
from quotestream.core import Core
from quotestream.credential import Credential, TokenSource
from quotestream.document import Document
from quotestream.errors import Refused as StreamRefused
from quotestream.running import Running
from quotestream.trio_driver import TrioDriver
from server.quotes.view import Form

__all__ = ["Core", "Credential", "Listener", "StreamRefused", "follow", "follow_core"]

Listener = Callable[[Document, dict[str, Any]], None]


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

    The listener gets messages of the JSON form, whatever the server sends. If a connection is lost or
    cannot be made, it gets a message of type `connection`.

    Arguments:
        token: a token, or a function that returns one. The function is called at the start, and once
            when the server says that the token is not valid any more.
        format: the form of the server's messages. None chooses compact if the server has it,
            otherwise JSON.
        fields: the fields of a quote to get; none for all.

    Errors: StreamRefused; ValueError for a token that cannot be sent; what `token` raises.
    """

    def pass_on(document: Document, message: dict[str, Any]) -> None:
        if message["type"] != "connected":
            listener(document, message)

    credential = Credential(token)
    # A traceback with local variables would show the token in this frame.
    del token
    await follow_core(Core(symbols, format=format, fields=fields), url, credential, pass_on)


async def follow_core(core: Core, url: str, credential: Credential, listener: Listener) -> NoReturn:
    """Keep the document of `core`, as `follow` does. The listener also gets a message of type
    `connected` when a connection begins. Errors: as of `follow`.
    """

    def listen(message: dict[str, Any]) -> None:
        if message["type"] == "quotes_patch":
            for symbol in message["versions"]:
                # A quote of other types ends the connection, before the listener shows it.
                quote_of(core.document, symbol)
        listener(core.document, message)

    await Running(core, url, credential, TrioDriver(), listen).run()
