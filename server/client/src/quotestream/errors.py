"""The errors that the client raises: one tree, so that `except quotestream.Error` gets them all."""

from collections.abc import Sequence


class Error(Exception):
    """The client cannot do what it was asked to."""


class Refused(Error):
    """The server refuses this client for good. The client does not come back by itself.

    `code` is the protocol's, such as `unauthorized` or `no_valid_symbols`.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class CommandRefused(Error):
    """The server did not carry out a command, or its part about `symbols`. The connection goes on.

    `code` is the protocol's, such as `unknown_symbol` or `rate_limited`. If there are several reasons,
    it is that of the first, and `symbols` has the symbols of all.
    """

    def __init__(self, code: str, message: str, symbols: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.symbols = tuple(symbols)


class Ended(Error):
    """The block `async with connect(...)` is over. Connect again."""


class TimedOut(Error):
    """The server did not answer within the time that the caller gave."""


class BadMessage(Error):
    """The server sent something that is not a message of the protocol.

    The client comes back on a new connection, so an application does not see this.
    """
