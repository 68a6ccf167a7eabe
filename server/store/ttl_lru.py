"""A bounded mapping that forgets what was used least recently, and knows until when a value is good."""

from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeVar

import trio

T = TypeVar("T")


class Kept(NamedTuple, Generic[T]):
    """A value and how many seconds it is still good; none or fewer: it is past that."""

    value: T
    lifetime: float


class TtlLru(Generic[T]):
    """At most `size` values by key. Those past their time stay until there is no room for them."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._values: dict[str, tuple[T, float]] = {}

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: str) -> Kept[T] | None:
        """The value, good or not; it then is the most recently used one."""
        kept = self._values.pop(key, None)
        if kept is None:
            return None
        self._values[key] = kept
        return Kept(kept[0], kept[1] - trio.current_time())

    def put(self, key: str, value: T, lifetime: float) -> None:
        """Keep `value`, good for `lifetime` seconds."""
        self._values.pop(key, None)
        self._values[key] = value, trio.current_time() + lifetime
        if len(self._values) > self.size:
            del self._values[next(iter(self._values))]

    def discard(self, keys: Iterable[str]) -> int:
        """Forget; how many there were."""
        return sum(self._values.pop(key, None) is not None for key in keys)

    def clear(self) -> None:
        """Forget all."""
        self._values.clear()
