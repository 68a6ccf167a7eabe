"""Gives instruments new symbols: with their quotes, versions, subscribers, and waiting updates."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from server.fanout.agreement import is_of, renamed_state, renames, state_after
from server.fanout.bars import Bars
from server.fanout.journal import Journal
from server.fanout.outbox import Outbox
from server.fanout.removal import move_subscribers, take_away
from server.fanout.status import MarketStatus
from server.fanout.subscriber_set import Audience
from server.fanout.topic import Topic
from server.fanout.topic_task import TopicTasks
from server.history.trades import RecentTrades
from server.quotes.snapshot import LiveSnapshot, Snapshot


@dataclass(kw_only=True)
class Renaming:
    """Owned by the hub, which gives it its own state and methods. `present` has the symbols that old
    ones lead to.
    """

    topics: dict[str, Topic]
    delisted: dict[str, Topic | None]
    markets: dict[str, MarketStatus]
    everyone: Audience
    tasks: TopicTasks
    journal: Journal
    bars: Bars
    trades: RecentTrades
    list_state: Callable[[Snapshot, int | None], Topic]
    adopt: Callable[[Iterable[LiveSnapshot]], None]
    delist: Callable[[Iterable[str]], None]
    subscribe: Callable[[Outbox, Topic], None]
    present: dict[str, str] = field(default_factory=dict)

    def follow(self, rows: Iterable[Snapshot], *, certain: bool) -> dict[str, str | None]:
        """Rename the instruments that have another symbol in `rows`.

        Return the new symbols by the old ones, in the order of the renames; None: it was delisted.

        A row may be of another instrument than the one that has its symbol here, and no row has that
        one's new symbol. If `certain`, as the rows are the catalogue's, delist it. Otherwise rename
        nothing, as a later call brings the missing row.
        """
        rows = [row for row in rows if row.adjustments]
        moves = renames(self.topics, rows)
        strangers = [
            row.symbol
            for row in rows
            if row.symbol not in moves and not is_of(self.topics.get(row.symbol), row)
        ]
        if strangers and not certain:
            return {}
        self.delist(strangers)
        self.rename(moves)
        gone = dict.fromkeys(strangers)
        return gone | {symbol: row.symbol for symbol, row in moves.items()}

    def rename(self, moves: Mapping[str, Snapshot]) -> None:
        """Rename instruments at once, by old symbol. One may take the symbol of another."""
        moved = [(self.topics.pop(symbol, None), row) for symbol, row in moves.items()]
        markets = [self.markets.pop(symbol, None) for symbol in moves]
        # The symbol of an instrument that was delisted may be taken.
        taken = {row.symbol for row in moves.values()} - self.topics.keys()
        for symbol, (old, _) in zip(moves, moved, strict=True):
            self.delisted[symbol] = old or self.delisted.get(symbol)
        for (old, row), market in zip(moved, markets, strict=True):
            if old is not None:
                new = self._succeed(old, row)
                self._move_market(market, new)
            elif row.symbol not in self.topics and (past := self.delisted.pop(row.symbol, None)):
                self.list_state(state_after(past, row), None)
        changed = {symbol: row.symbol for symbol, row in moves.items()}
        self._move_history(changed, taken)
        for symbol, now in self.present.items():
            self.present[symbol] = changed.get(now, now)
        self.present |= changed
        for row in moves.values():
            self.present.pop(row.symbol, None)

    def _succeed(self, old: Topic, row: Snapshot) -> Topic:
        """Go on with the quote of `old`, which is not listed any more, as `row`."""
        new = self.topics.get(row.symbol)
        # If the leader was faster, subscribers of `*` have the new symbol.
        old.everyone = Audience() if new is None else self.everyone
        if new is None:
            past = self.delisted.pop(row.symbol, None)
            state = renamed_state(old, row, past.version if past else 1)
            new = self.list_state(state, old.ts)
            new.quote_due = False
        else:
            self.adopt([renamed_state(old, row, 1)])
        self.tasks.succeed(old, new)
        taken = self.topics.get(old.symbol)
        move_subscribers(old, new, self.everyone, self.subscribe, taken)
        take_away(old)
        if self.journal.recording:
            self.journal.lose([new.symbol])
        return new

    def _move_history(self, changed: Mapping[str, str], taken: Collection[str]) -> None:
        """Go on with bars under the new symbols. If another instrument had one, which was delisted, its
        bars do not go on. The trades kept under old versions are of no use.
        """
        self.trades.drop(changed)
        # Two may exchange their symbols, so each first gets one that nobody has.
        for symbol, new in changed.items():
            self.bars.rename(symbol, f"\0{new}")
        for symbol in taken:
            self.bars.begin_anew(symbol)
        for new in changed.values():
            self.bars.rename(f"\0{new}", new)

    def _move_market(self, market: MarketStatus | None, new: Topic) -> None:
        """Go on with the market's status under the new symbol. If it lasts, tell the subscribers."""
        if market and new.symbol not in self.markets:
            market.rename(new.symbol)
            self.markets[new.symbol] = market
            if market.is_news:
                new.publish_source(market)
