"""The messages of one venue, without I/O: what to send, and what a message means."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Annotated, ClassVar, NamedTuple, NoReturn, Protocol

from msgspec import Meta

from server.quotes.instrument import DEFAULT_CURRENCY, LARGEST_WHOLE, Instrument

Published = Mapping[str, object]
"""One object as publishers send it (docs/publishing.md): a trade, a quote, a status, a correction."""


class Refused(Exception):
    """The venue refuses the subscription or the credentials. The message gives its words."""


class BadMessage(Exception):
    """A message that is not as the venue documents it."""


class Reading(NamedTuple):
    """The meaning of one message: objects for the intake, and messages to send to the venue."""

    objects: Sequence[Published] = ()
    replies: Sequence[object] = ()


NOTHING = Reading()

CRYPTO_DECIMALS = 8
"""Decimals of prices and sizes of crypto currencies that no catalogue has: one satoshi."""


TradeNumber = Annotated[int, Meta(ge=0, le=LARGEST_WHOLE)]
"""The number of a trade, which becomes its `seq`."""

_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?", re.ASCII)


class Venue(ABC):
    """One venue and the symbols to follow there, spelled as the venue spells them."""

    name: ClassVar[str]
    """The source of all its objects, for `SOURCE_PRIORITY` and metrics."""

    silence: ClassVar[float | None] = None
    """Seconds without any message after which the connection is dead. None: pings must tell."""

    greets: ClassVar[bool] = False
    """Whether the venue speaks first, so that a connection without a message is dead."""

    numbered: ClassVar[bool] = False
    """Whether each symbol's trades have consecutive numbers, so that a gap shows."""

    def __init__(self, url: str, symbols: Sequence[str]) -> None:
        self.url = url
        self.symbols = list(symbols)

    def instrument(self, symbol: str) -> Instrument:
        """Return data for a symbol that no catalogue has. Its first price becomes the base price."""
        return Instrument(
            symbol=symbol,
            name=symbol,
            type="CRYPTO",
            currency=self.currency(symbol),
            base_price=None,
            price_decimals=CRYPTO_DECIMALS,
            size_decimals=CRYPTO_DECIMALS,
        )

    def currency(self, symbol: str) -> str:  # noqa: ARG002 (most venues' symbols tell it)
        """Return the currency of a symbol's prices."""
        return DEFAULT_CURRENCY

    def greeting(self) -> Sequence[object]:
        """Return the messages to send, as JSON, once connected."""
        return ()

    @abstractmethod
    def read(self, text: str | bytes) -> Reading:
        """Return what `text` means. A message of an unknown type means nothing.

        Errors: Refused, BadMessage.
        """


class VenueFeed(Protocol):
    """A venue's feed, as the rest of the server knows it. `connections` and `missed` (trades in gaps)
    only grow.
    """

    venue: Venue
    connected: bool
    connections: int
    missed: int

    async def run(self) -> NoReturn:
        """Follow the venue until cancelled, whatever it does."""


def number(text: str) -> float:
    """Return the number that a venue writes as text. Errors: BadMessage."""
    # `float` takes more, such as nan, which would be an empty side of the book.
    if not _NUMBER.fullmatch(text) or not isfinite(found := float(text)):
        raise BadMessage(f"not a number: {text[:40]!r}")
    return found


def optional_number(text: str | None) -> float | None:
    """Return the number, None if there is none or an empty text. Errors: BadMessage."""
    return number(text) if text else None
