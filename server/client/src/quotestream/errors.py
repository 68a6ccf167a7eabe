"""The errors that the client raises: one tree, so that `except quotestream.Error` gets them all."""

from collections.abc import Mapping, Sequence

from server.reconnecting import readable


class Error(Exception):
    """The client cannot do what it was asked to."""


class Refused(Error):
    """The server refuses this client for good. The client does not come back by itself.

    `code` is the protocol's, such as `unauthorized` or `no_valid_symbols`.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return self.message


class CommandRefused(Error):
    """The server did not carry out a command, or its part about `symbols`. The connection goes on.

    `code` is the protocol's, such as `unknown_symbol` or `rate_limited`. `reasons` says, by symbol, why
    it was refused. If there are several reasons, `code` and `message` are those of the first.
    """

    def __init__(self, code: str, message: str, reasons: Mapping[str, str] | None = None) -> None:
        super().__init__(code, message, reasons)
        self.code = code
        self.message = message
        self.reasons = dict(reasons or {})

    @property
    def symbols(self) -> tuple[str, ...]:
        """Return the symbols that were refused: all that the command names if it was refused as a
        whole; none if it names none, as `throttle`.
        """
        return tuple(self.reasons)

    def __str__(self) -> str:
        by_reason: dict[str, list[str]] = {}
        for symbol, reason in self.reasons.items():
            by_reason.setdefault(reason, []).append(symbol)
        parts = [f"{reason}: {_listed(symbols)}" for reason, symbols in by_reason.items()]
        return "; ".join(parts) or self.message


class Ended(Error):
    """The block `async with connect(...)` is over. Connect again."""


class TimedOut(Error):
    """The server did not answer within the time that the caller gave."""


class Misused(Error, RuntimeError):
    """The library is called where it cannot work. The message says what to do."""


class BadMessage(Error):
    """The server sent something that is not a message of the protocol.

    The client comes back on a new connection, so an application does not see this.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(readable(problem))


SHOWN = 10
"""Symbols that an error's text names. `symbols` has all."""


def _listed(symbols: Sequence[str]) -> str:
    more = f" and {len(symbols) - SHOWN} more" if len(symbols) > SHOWN else ""
    return ", ".join(map(readable, symbols[:SHOWN])) + more
