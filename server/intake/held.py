"""Holds back trades far from the last price, until others agree with them."""

import msgspec

from server.intake.sources import Source

AGREEING_PRINTS = 3
"""Trades near a held one that confirm it."""

HELD_A_SYMBOL = 64
"""Trades held of one symbol. Then the oldest is dropped, counted and logged."""

HELD_IN_ALL = 10_000
"""Trades held of all symbols, some 3 MB. Beyond it, a symbol's held trade replaces its oldest."""


class Candidate(msgspec.Struct, gc=False):
    """A trade before it counts. `agreeing`: the number of later trades near it."""

    price: float
    size: float
    time_us: int
    seq: int
    id: int
    source: Source
    agreeing: int = 0


class HeldTrades:
    """`band`: the share of a price within which two prices agree. `dropped` counts trades that were
    neither confirmed nor taken out.
    """

    def __init__(self, band: float) -> None:
        self.band = band
        self.dropped = 0
        self.count = 0
        self._symbols: dict[str, list[Candidate]] = {}

    def is_near(self, price: float, other: float) -> bool:
        """Whether `price` is within the band of `other`. All prices are near zero."""
        return not other or abs(price - other) <= self.band * abs(other)

    def of(self, symbol: str) -> list[Candidate]:
        """Return the held trades of a symbol, the oldest first."""
        return self._symbols.get(symbol, [])

    def hold(self, symbol: str, candidate: Candidate) -> None:
        """Hold a trade back."""
        held = self._symbols.setdefault(symbol, [])
        if len(held) >= HELD_A_SYMBOL or (held and self.count >= HELD_IN_ALL):
            del held[0]
            self.dropped += 1
            self.count -= 1
        held.append(candidate)
        self.count += 1

    def confirm(self, symbol: str, price: float) -> list[Candidate]:
        """Count a further trade, and return the held ones that it confirms, the oldest first.

        Trades near a confirmed one are confirmed with it.
        """
        held = self._symbols.get(symbol)
        if not held:
            return []
        for each in held:
            if self.is_near(price, each.price):
                each.agreeing += 1
        sure = [each.price for each in held if each.agreeing >= AGREEING_PRINTS]
        found = [each for each in held if any(self.is_near(each.price, other) for other in sure)]
        for each in found:
            self._take(symbol, held, each)
        return sorted(found, key=lambda each: (each.time_us, each.seq))

    def take(self, symbol: str, key: int) -> Candidate | None:
        """Take out the held trade whose id has this hash, None if there is none."""
        held = self._symbols.get(symbol, [])
        found = next((each for each in held if each.id == key), None)
        if found:
            self._take(symbol, held, found)
        return found

    def has(self, symbol: str, key: int) -> bool:
        """Whether the trade whose id has this hash is held."""
        return any(each.id == key for each in self.of(symbol))

    def rename(self, symbol: str, new: str) -> None:
        """Go on with a symbol's held trades under its new name."""
        if held := self._symbols.pop(symbol, None):
            self._symbols[new] = [*held, *self.of(new)]

    def drop(self, symbol: str) -> None:
        """Drop all held trades of a symbol."""
        for each in [*self._symbols.get(symbol, ())]:
            self._take(symbol, self._symbols[symbol], each)
            self.dropped += 1

    def _take(self, symbol: str, held: list[Candidate], found: Candidate) -> None:
        held.remove(found)
        self.count -= 1
        if not held:
            del self._symbols[symbol]
