"""Keeps the last trades of each symbol in memory, so that a client can fill a gap trade by trade."""

from collections import deque
from collections.abc import Iterable

import msgspec

from server.quotes.instrument import MAX_DECIMALS, at_tick
from server.quotes.traded import Traded
from server.quotes.update import Move, Trade, Update

TRADES_MEMORY = 64 * 2**20
"""Bytes for the trades of all symbols by default."""

BYTES_A_TRADE = 180
"""Bytes of one trade, as measured: its struct, the numbers in it, and its place."""

BYTES_A_SYMBOL = 950
"""Bytes of a symbol without its trades, as measured."""

MOST = 1000
"""Trades of a symbol at most."""

SHARE_LEFT = 0.75
"""The part of each symbol's trades that stays if the trades of all take too much memory."""


class KeptTrade(msgspec.Struct, frozen=True, gc=False):
    """One trade, with the version that it made of the quote."""

    version: int
    price: float
    size: int | float
    time_us: int


class _Symbol:
    """`trades` has all trades of the versions above `floor`."""

    __slots__ = ("floor", "trades")

    def __init__(self, floor: int) -> None:
        self.floor = floor
        self.trades = deque[KeptTrade]()


class RecentTrades:
    """Owned by the hub. `memory` bounds the bytes of all trades and tables, approximately."""

    def __init__(self, memory: int = TRADES_MEMORY) -> None:
        self._memory = memory
        self._share = MOST
        self._used = 0
        self._symbols: dict[str, _Symbol] = {}

    def absorb(
        self,
        symbol: str,
        version: int,
        update: Update,
        price: float | None,
        decimals: int = MAX_DECIMALS,
    ) -> None:
        """Keep the trade that made a version. `price` is the quote's after it. `decimals` are those of
        its instrument's prices.

        An update of several trades, as an overload makes, leaves a gap. A cancel or a correction
        changes nothing.
        """
        if type(update) is Trade and price is not None:
            self._keep(symbol, KeptTrade(version, price, update.size, update.time_us))
            return
        parts = update.trades if isinstance(update, Move) else update.change.minutes
        new = [each for each in parts if not each.restated]
        if any(each.hides_trades for each in parts) or sum(each.count for each in new) > 1:
            self._forget(symbol, version)
        elif new:
            self._keep(symbol, _only(new[0], version, decimals))

    def after(
        self, symbol: str, version: int, newest: int, limit: int
    ) -> tuple[list[KeptTrade], bool]:
        """Return the first trades above a version, and whether none of those above it is missing.

        `newest` is the quote's version now.
        """
        kept = self._symbols.get(symbol)
        if kept is None:
            return [], version >= newest
        found = [each for each in kept.trades if each.version > version]
        return found[:limit], version >= kept.floor

    def drop(self, symbols: Iterable[str]) -> None:
        """Forget symbols."""
        for symbol in symbols:
            if kept := self._symbols.pop(symbol, None):
                self._used -= BYTES_A_SYMBOL + BYTES_A_TRADE * len(kept.trades)

    def _keep(self, symbol: str, trade: KeptTrade) -> None:
        kept = self._symbols.get(symbol)
        if kept is None:
            kept = self._begin(symbol, trade.version - 1)
        trades = kept.trades
        # Only a new epoch goes back.
        if trades and trade.version <= trades[-1].version:
            self._used -= BYTES_A_TRADE * len(trades)
            trades.clear()
            kept.floor = trade.version - 1
        if len(trades) >= self._share:
            kept.floor = trades.popleft().version
        else:
            self._used += BYTES_A_TRADE
        trades.append(trade)
        self._bound()

    def _begin(self, symbol: str, floor: int) -> _Symbol:
        self._used += BYTES_A_SYMBOL
        kept = self._symbols[symbol] = _Symbol(floor)
        return kept

    def _forget(self, symbol: str, floor: int) -> None:
        """Forget a symbol's trades up to a version."""
        self.drop([symbol])
        self._begin(symbol, floor)
        self._bound()

    def _bound(self) -> None:
        while self._used > self._memory:
            self._shrink()

    def _shrink(self) -> None:
        """Take a part of their trades from the symbols that have most. If each has only one, forget the
        symbol that has been here longest.
        """
        if self._share == 1:
            self.drop([next(iter(self._symbols))])
            return
        self._share = max(1, int(self._share * SHARE_LEFT))
        for kept in self._symbols.values():
            while len(kept.trades) > self._share:
                kept.floor = kept.trades.popleft().version
                self._used -= BYTES_A_TRADE


def _only(part: Traded, version: int, decimals: int) -> KeptTrade:
    return KeptTrade(version, at_tick(part.open, decimals), part.volume, part.first_us)
