"""The market as the intake asks for it, its rules, and the notices that it gives."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from server.intake.answer import Answer
from server.intake.kept import Values
from server.intake.trades import TRADES_MEMORY
from server.quotes.instrument import Instrument
from server.quotes.messages import MarketState
from server.quotes.update import Change, NewSession, Restatement, TopOfBook, Trade
from server.sessions.calendar import ALWAYS, Calendar


class Market(Protocol):
    """Knows the symbols that exist."""

    def instrument(self, symbol: str) -> Instrument | None:
        """Return a symbol's reference data, None for an unknown symbol.

        The data of a renamed symbol have the new symbol.
        """

    def may_list(self, symbol: str) -> bool:
        """Return whether a trade may list a symbol that does not exist."""

    def values(self, symbol: str) -> Values:
        """Return a symbol's present values."""


class Rules(NamedTuple):
    """`band`: see PRICE_BAND; None if it is off. `priority` and `silent_after`, in seconds: see
    SOURCE_PRIORITY. `trades_memory`: in bytes. `own`: the sources that are this server's own feeds.
    `session`: the market's hours.
    """

    band: float | None = None
    priority: Sequence[str] = ()
    silent_after: float = 10.0
    trades_memory: int = TRADES_MEMORY
    own: Sequence[str] = ()
    session: Calendar = ALWAYS


class Notice(NamedTuple):
    """A symbol's market was halted or closed, or is open again."""

    symbol: str
    status: MarketState
    reason: str


Effect = Trade | Change | TopOfBook | Restatement | NewSession | Notice


class Taken(NamedTuple):
    """The effects of a batch, in the order of its objects, and its answer."""

    effects: list[Effect]
    answer: Answer
