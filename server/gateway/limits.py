"""How many commands a client may send, and how many of them may be wrong."""

from collections.abc import Callable

import trio

BURST_SECONDS = 2
"""Seconds' worth of commands that may come at once, as after a page was opened."""

SYMBOLS_A_COMMAND = 50
"""Symbols for which a command counts once more: their quotes take as long to encode and send as a
command takes to read. Otherwise 50 bytes that ask for all quotes would bring 130 KB at the price of one
command.
"""

REFUSALS_BEFORE_CLOSE = 200
"""Commands that may be refused before the connection is closed for flooding."""

REFUSALS_REGAINED = 10
"""Refusals that the server forgives each second."""

BAD_COMMANDS_IN_A_ROW = 10
"""More than these close the connection with 1008."""


class TokenBucket:
    """Holds up to `burst` tokens, refilled at `rate` a second of `clock`. It starts full."""

    __slots__ = ("_burst", "_clock", "_filled_at", "_rate", "_tokens")

    def __init__(
        self, rate: float, burst: float, clock: Callable[[], float] = trio.current_time
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._tokens = burst
        self._filled_at = clock()

    def take(self) -> bool:
        """Take one token; False if there is none."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def give_back(self) -> None:
        """Put a token back that was not used."""
        self._tokens = min(self._burst, self._tokens + 1)

    def add_debt(self, tokens: float) -> None:
        """Take tokens even if there are too few; `take` then fails until these are refilled."""
        self._tokens -= tokens


class CommandLimit:
    """Limits one connection: the rate of its commands, the number of commands that came too fast, and
    the bad commands in a row.
    """

    __slots__ = ("_bad", "_commands", "_rate", "_refusals")

    def __init__(self, rate: int, clock: Callable[[], float] = trio.current_time) -> None:
        self._rate = rate
        self._commands = TokenBucket(rate, rate * BURST_SECONDS, clock)
        self._refusals = TokenBucket(REFUSALS_REGAINED, REFUSALS_BEFORE_CLOSE, clock)
        self._bad = 0

    def allows(self) -> bool:
        """Count a command; False if it came too fast."""
        return self._commands.take()

    def charge(self, symbols: int) -> None:
        """Count a command for its `symbols`, at most as many commands as may come in a second."""
        self._commands.add_debt(min(symbols // SYMBOLS_A_COMMAND, self._rate))

    def is_flooded(self) -> bool:
        """Count a command that came too fast; True if too many did."""
        return not self._refusals.take()

    def too_many_bad(self, *, good: bool) -> bool:
        """Count a command as good or bad; True after too many bad ones in a row."""
        self._bad = 0 if good else self._bad + 1
        return self._bad > BAD_COMMANDS_IN_A_ROW
