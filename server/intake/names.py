"""Names of trades: the hash of an id, also of one that came under a symbol's former name."""

from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from struct import Struct

from server.intake.kept import NO_ID
from server.intake.once import ID_MEMORY_US

_INT64 = Struct("<q")


def id_hash(symbol: str, name: str | int | None, event: bytes = b"") -> int:
    """Return the hash of an id, which is never NO_ID; NO_ID without an id. `event`: not the trade."""
    # Not `hash`, which is another one in each process: the next leader has to know the id.
    digest = blake2b(f"{symbol}\0{name}".encode(), digest_size=8, person=event).digest()
    return NO_ID if name is None else _INT64.unpack(digest)[0] or 1


class FormerNames:
    """The former names of renamed symbols, each with the moment of the rename in microseconds."""

    def __init__(self) -> None:
        self._names: dict[str, dict[str, int]] = {}

    def of(self, symbol: str) -> Mapping[str, int]:
        """Return the former names of a symbol, each with the moment of its rename."""
        return self._names.get(symbol, {})

    def add(self, symbol: str, names: Mapping[str, int]) -> None:
        """Note former names of a symbol."""
        if names:
            self._names[symbol] = {**self.of(symbol), **names}

    def rename(self, symbol: str, new: str, now: int) -> None:
        """Note that `symbol` is `new` from now on."""
        self.add(new, {**self._names.pop(symbol, {}), symbol: now})

    def present(self) -> dict[str, tuple[str, int]]:
        """Return each former name's present one, and the moment of the rename."""
        return {
            former: (symbol, renamed_at)
            for symbol, names in self._names.items()
            for former, renamed_at in names.items()
        }

    def forget(self, symbol: str) -> None:
        """Forget a symbol that was delisted."""
        self._names.pop(symbol, None)

    def key(
        self,
        symbol: str,
        name: str | int | None,
        now: int,
        is_known: Callable[[int, bool], bool],
        event: bytes = b"",
    ) -> int:
        """Return the hash of an id: under the name that its trade came with, if that `is_known`.

        `is_known` also learns whether the id may have been counted under that name.
        """
        if name is not None and symbol in self._names:
            for former, renamed_at in self._recent_first(symbol):
                was = id_hash(former, name, event)
                # Later, another instrument may have the former name and the same id.
                if is_known(was, now - renamed_at < 2 * ID_MEMORY_US):
                    return was
        return id_hash(symbol, name, event)

    def _recent_first(self, symbol: str) -> Iterator[tuple[str, int]]:
        return reversed(self._names[symbol].items())
