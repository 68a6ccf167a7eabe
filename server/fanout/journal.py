"""The moves that other instances have not been told yet; written by topics, owned by the hub."""

from collections import deque
from collections.abc import Iterable

import trio

from server.quotes.quote import Move

JOURNAL_MOVES = 10_000
"""Moves that wait to be told, some 2 MB. If there are more, only their symbols are kept."""


class Journal:
    """`recording`: whether other instances are told at all. `lost`: symbols whose state they have to
    be told, as some of the moves cannot be.
    """

    def __init__(self) -> None:
        self.recording = False
        self.lost: dict[str, None] = {}
        self._moves: deque[Move] = deque()
        self._news = trio.Event()

    def open(self) -> None:
        """Record from now on."""
        self.close()
        self.recording = True

    def close(self) -> None:
        """Record no more, and forget all that is recorded."""
        self.recording = False
        self.lost.clear()
        self._moves.clear()

    def record(self, move: Move) -> None:
        """Add one move. A full journal first gives up all moves, and keeps their symbols as lost."""
        if len(self._moves) >= JOURNAL_MOVES:
            self.lose(each.symbol for each in self._moves)
            self._moves.clear()
        self._moves.append(move)
        self._news.set()

    def lose(self, symbols: Iterable[str]) -> None:
        """Note that some moves of `symbols` cannot be told."""
        self.lost.update(dict.fromkeys(symbols))
        if self.lost:
            self._news.set()

    def take(self, limit: int) -> list[Move]:
        """Take out the oldest moves, up to `limit`."""
        moves = self._moves
        return [moves.popleft() for _ in range(min(limit, len(moves)))]

    @property
    def waiting(self) -> int:
        """The number of moves that wait to be told."""
        return len(self._moves)

    def wake(self) -> None:
        """End a `wait`."""
        self._news.set()

    async def wait(self) -> None:
        """Wait until there is something to tell, or `wake` was called since the last wait."""
        if self._moves or self.lost:
            await trio.lowlevel.checkpoint()
        else:
            await self._news.wait()
        self._news = trio.Event()
