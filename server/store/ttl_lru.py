"""A bounded mapping with a lifetime for each value. It forgets the least recently used value first."""

from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeVar

import trio

T = TypeVar("T")


class Kept(NamedTuple, Generic[T]):
    """A value and the seconds until it expires; zero or less if it has expired."""

    value: T
    lifetime: float


class TtlLru(Generic[T]):
    """At most `size` values by key. Expired ones stay until their place is needed."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._values: dict[str, tuple[T, float]] = {}

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: str) -> Kept[T] | None:
        """Return the value, expired or not, and make it the most recently used one."""
        kept = self._values.pop(key, None)
        if kept is None:
            return None
        self._values[key] = value, expires_at = kept
        return Kept(value, expires_at - trio.current_time())

    def put(self, key: str, value: T, lifetime: float) -> None:
        """Keep `value`, which expires in `lifetime` seconds."""
        self._values.pop(key, None)
        self._values[key] = value, trio.current_time() + lifetime
        if len(self._values) > self.size:
            del self._values[next(iter(self._values))]

    def discard(self, keys: Iterable[str]) -> int:
        """Remove `keys` and return how many were present."""
        return sum(self._values.pop(key, None) is not None for key in keys)

    def clear(self) -> None:
        """Remove all values."""
        self._values.clear()
