"""The moves that the leader has not published yet. Topics write it, the hub owns it."""

from collections import deque
from collections.abc import Iterable

import trio

from server.quotes.update import NOWHERE, FeedPosition, Move

JOURNAL_MOVES = 10_000
"""Moves that wait for publication, some 2 MB. Of more moves, the journal keeps only the symbols."""


class Journal:
    """`recording`: whether this instance publishes moves. `lost`: symbols of which some moves are lost,
    so that the leader has to publish their state.

    `reached` is the feed's position: the journal got the moves of all rows before it. `position` is
    behind that until the leader has taken out all these moves.
    """

    def __init__(self) -> None:
        self.recording = False
        self.reached = self.position = NOWHERE
        self.lost: dict[str, None] = {}
        self._moves: deque[Move] = deque()
        self._news = trio.Event()

    def open(self, position: FeedPosition = NOWHERE) -> None:
        """Record from now on. The feed goes on from `position`."""
        self.close()
        self.recording = True
        self.reached = self.position = position

    def begin_feed(self, position: FeedPosition) -> None:
        """Take note that the feed begins at `position`: it reads no row before that."""
        self.reached = self.position = position

    def close(self) -> None:
        """Record no more, and forget all that is recorded."""
        self.recording = False
        self.lost.clear()
        self._moves.clear()

    def record(self, move: Move) -> None:
        """Add one move. If the journal is full, it first drops all its moves and marks their symbols as
        lost.
        """
        if len(self._moves) >= JOURNAL_MOVES:
            self.lose(each.symbol for each in self._moves)
            self._moves.clear()
        self._moves.append(move)
        self._news.set()

    def lose(self, symbols: Iterable[str]) -> None:
        """Mark `symbols` as lost: some of their moves cannot be published."""
        self.lost.update(dict.fromkeys(symbols))
        if self.lost:
            self._news.set()

    def take(self, limit: int) -> list[Move]:
        """Take out the oldest moves, up to `limit`."""
        moves = self._moves
        taken = [moves.popleft() for _ in range(min(limit, len(moves)))]
        if not moves:
            self.position = self.reached
        return taken

    @property
    def waiting(self) -> int:
        """The number of moves that wait for publication."""
        return len(self._moves)

    def wake(self) -> None:
        """End a `wait`."""
        self._news.set()

    async def wait(self) -> None:
        """Wait until there is something to publish, or `wake` was called since the last wait."""
        if self._moves or self.lost:
            await trio.lowlevel.checkpoint()
        else:
            await self._news.wait()
        self._news = trio.Event()
