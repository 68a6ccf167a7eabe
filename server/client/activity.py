"""Counts the updates of each symbol in the last minute."""

from collections import Counter, deque

WINDOW = 60
"""Seconds over which updates are counted."""


class Activity:
    """Updates by symbol, in seconds of a clock that only goes forward."""

    def __init__(self) -> None:
        self._seconds: deque[tuple[int, Counter[str]]] = deque()
        self._total: Counter[str] = Counter()

    def note(self, symbol: str, now: float) -> None:
        """Count one update."""
        self._forget(now)
        second = int(now)
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append((second, Counter()))
        self._seconds[-1][1][symbol] += 1
        self._total[symbol] += 1

    def count(self, symbol: str) -> int:
        """Return the updates of a symbol in the last minute."""
        return self._total[symbol]

    def busiest(self, number: int, now: float) -> list[str]:
        """Return the symbols with the most updates, the busiest first. Equals are in their order."""
        self._forget(now)
        ranked = sorted(self._total, key=lambda symbol: (-self._total[symbol], symbol))
        return ranked[:number]

    def _forget(self, now: float) -> None:
        while self._seconds and self._seconds[0][0] <= now - WINDOW:
            _, counts = self._seconds.popleft()
            self._total.subtract(counts)
            for symbol in counts:
                if not self._total[symbol]:
                    del self._total[symbol]
