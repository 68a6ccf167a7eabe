"""What has to survive a change of the leader: how far the sources of each symbol have come."""

from collections.abc import Iterable

import msgspec

from server.intake.held import Candidate
from server.intake.intake import Intake
from server.intake.sources import Progress


class HeldTrade(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A trade that is held back. See `Candidate`."""

    source: str
    price: float
    size: float
    time_us: int
    seq: int
    id: int
    agreeing: int


class SymbolState(msgspec.Struct, frozen=True, array_like=True):
    """One symbol in all its sources: some 100 bytes for each. Trades that were counted are not in it,
    so the next leader cannot revise them.
    """

    symbol: str
    progress: list[Progress]
    held: list[HeldTrade]


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(SymbolState)


def save(intake: Intake, symbol: str) -> bytes:
    """Return the state of a symbol."""
    held = [
        HeldTrade(
            each.source.name,
            each.price,
            each.size,
            each.time_us,
            each.seq,
            each.id,
            each.agreeing,
        )
        for each in intake.held.of(symbol)
    ]
    return _encode(SymbolState(symbol, intake.sources.all_progress(symbol), held))


def restore(intake: Intake, states: Iterable[bytes], now: int) -> int:
    """Let an intake that has begun go on from saved states. Return the number of unreadable ones."""
    unreadable = 0
    for data in states:
        try:
            state = _decoder.decode(data)
            intake.sources.restore(state.progress, now)
        except ValueError:
            unreadable += 1
            continue
        for each in state.held:
            if source := intake.sources.get(each.source, now):
                candidate = Candidate(
                    each.price, each.size, each.time_us, each.seq, each.id, source, each.agreeing
                )
                intake.held.hold(state.symbol, candidate)
    return unreadable
