"""What has to survive a change of the leader: how far the sources of each symbol have come."""

from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from server.intake.held import Candidate
from server.intake.intake import Intake
from server.intake.sources import Progress, Seq
from server.quotes.snapshot import Medium, Microseconds, Price, Size


class HeldTrade(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A trade that is held back. See `Candidate`."""

    source: str
    price: Price
    size: Size
    time_us: Microseconds
    seq: Seq
    id: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
    agreeing: Medium


class SymbolState(msgspec.Struct, frozen=True, array_like=True):
    """One symbol in all its sources: some 100 bytes for each. `former`: see `FormerNames`. Kept trades
    have their own log (`kept_log.py`).
    """

    progress: list[Progress]
    held: list[HeldTrade]
    former: dict[str, Microseconds] = msgspec.field(default_factory=dict)


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(SymbolState)


def save(intake: Intake, symbol: str) -> bytes:
    """Return the state of a symbol."""
    held = [
        HeldTrade(
            each.source.name, each.price, each.size, each.time_us, each.seq, each.id, each.agreeing
        )
        for each in intake.held.of(symbol)
    ]
    former = dict(intake.former.of(symbol))
    return _encode(SymbolState(intake.sources.all_progress(symbol), held, former))


def renamed(symbol: str, data: bytes, new: str, now: int) -> bytes:
    """Return the state of a symbol as that of its new name; b"" if it cannot be read."""
    try:
        state = _decode(symbol, data)
    except ValueError:
        return b""
    progress = [msgspec.structs.replace(each, symbol=new) for each in state.progress]
    return _encode(SymbolState(progress, state.held, {**state.former, symbol: now}))


def restore(intake: Intake, states: Mapping[str, bytes], now: int) -> int:
    """Let an intake that has begun go on from each symbol's saved state. Return the number of those
    that cannot be read.
    """
    unreadable = 0
    for symbol, data in states.items():
        try:
            state = _decode(symbol, data)
        except ValueError:
            unreadable += 1
            continue
        intake.sources.restore(state.progress, now)
        intake.former.add(symbol, state.former)
        for each in state.held:
            if source := intake.sources.get(each.source, now):
                candidate = Candidate(
                    each.price, each.size, each.time_us, each.seq, each.id, source, each.agreeing
                )
                intake.held.hold(symbol, candidate)
    return unreadable


def _decode(symbol: str, data: bytes) -> SymbolState:
    """Errors: ValueError."""
    state = _decoder.decode(data)
    if any(each.symbol != symbol for each in state.progress):
        raise ValueError("the state of another symbol")
    return state
