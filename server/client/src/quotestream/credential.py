"""A client's token: sent, never shown."""

from collections.abc import Awaitable, Callable
from inspect import isawaitable

from quotestream.request import is_word

TokenSource = Callable[[], str | Awaitable[str]]
"""Returns a token that is valid now; a function or a coroutine function."""


class Credential:
    """A token that no `repr`, traceback or log line shows, and where the next one comes from."""

    __slots__ = ("_renewed", "_source", "_token")

    def __init__(self, token: str | TokenSource) -> None:
        """Errors: ValueError, without the token, for one that a header cannot hold; TypeError for a
        value that is neither a text nor a function.
        """
        self._source: TokenSource | None = None
        self._renewed = False
        self._token = ""
        if isinstance(token, str):
            self._set(token)
        elif token is None or callable(token):
            self._source = token
        else:
            raise TypeError("token is neither a text nor a function that returns one")

    async def renew(self) -> bool:
        """Ask the source for a token: at the start, then once between two accepted connections. Return
        whether it was asked. Errors: ValueError, as above, and the source's own.
        """
        if self._source is None or self._renewed:
            return False
        self._renewed = self._token != ""
        answer = self._source()
        self._set(await answer if isawaitable(answer) else answer)
        return True

    def accepted(self) -> None:
        """Note that the server took the token: the source may be asked again."""
        self._renewed = False

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return the request's `Authorization` header, or nothing without a token."""
        return [(b"Authorization", f"Bearer {self._token}".encode())] if self._token else []

    def _set(self, token: str) -> None:
        if not isinstance(token, str) or not is_word(token):
            raise ValueError("a token is ASCII characters without spaces")
        self._token = token
