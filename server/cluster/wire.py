"""What instances tell each other through Redis: names of keys and channels, and what is in them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec
import structlog

from server.quotes.quote import Move
from server.quotes.snapshot import LiveSnapshot, Microseconds

CHANNEL = "price_updates"
"""Every batch of the leader is published here."""

PROBE_CHANNEL = "quotestream:probe:"
"""The identity of an instance follows: each hears its own probes only, or there would be N² of them."""

LEADER = "quotestream:leader"
"""The identity of the leader, as long as its lease lasts."""

EPOCH = "quotestream:epoch"
"""The newest leader's epoch; nobody publishes with another."""

QUOTES = "quotestream:quotes"
"""A hash: symbol -> `LiveSnapshot` as JSON, and META -> `Mark` as JSON."""

META = "meta"
"""A field that is no symbol, as those are in upper case."""

WATCHED = "quotestream:watched"
"""A sorted set: symbol -> when it was last said to be watched, in ms of Redis' clock."""

PAGE_FIELDS = 1000
"""Symbols read from the hash, or written to it, in one step: some 5 ms of Redis' time."""

log = structlog.get_logger()


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """What the leader publishes at once, as msgpack.

    `seq` grows by one with each batch of an epoch, and by two where moves before this one are only in
    the hash. `listed` are symbols that the leader tells of for the first time. `stale`: why the
    leader has no prices, empty if it has. `handover`: its identity if it leads no longer. `position`:
    the newest trade's time in microseconds since the Unix epoch, 0 before the first.
    """

    epoch: int
    seq: int
    moves: Sequence[Move] = ()
    listed: Sequence[LiveSnapshot] = ()
    stale: str = ""
    handover: str = ""
    position: Microseconds = 0


class Mark(msgspec.Struct, frozen=True):
    """Up to which batch the hash includes everything."""

    epoch: int
    seq: int


class Stored(NamedTuple):
    """What Redis holds: without a `mark` no leader has written to it yet; `led`: there is a leader."""

    mark: Mark | None
    snapshots: Mapping[str, LiveSnapshot]
    led: bool


encode_batch = msgspec.msgpack.Encoder().encode
_batch_decoder = msgspec.msgpack.Decoder(Batch)

encode_json = msgspec.json.Encoder().encode
_snapshot_decoder = msgspec.json.Decoder(LiveSnapshot)
_mark_decoder = msgspec.json.Decoder(Mark)


def decode_batch(data: bytes) -> Batch | None:
    """None for what is no batch, whoever published it."""
    try:
        return _batch_decoder.decode(data)
    except msgspec.MsgspecError as error:
        log.warning("not a batch", channel=CHANNEL, problem=str(error))
        return None


def decode_mark(data: bytes | str | None) -> Mark | None:
    """None where there is none, or something else."""
    try:
        return _mark_decoder.decode(data) if data else None
    except msgspec.MsgspecError as error:
        log.warning("the hash holds something else", field=META, problem=str(error))
        return None


def decode_snapshots(values: Iterable[bytes | str]) -> dict[str, LiveSnapshot]:
    """The snapshots by symbol, without what is none."""
    snapshots = {}
    for value in values:
        try:
            snapshot = _snapshot_decoder.decode(value)
        except msgspec.MsgspecError as error:
            log.warning("the hash holds something else", key=QUOTES, problem=str(error))
            continue
        snapshots[snapshot.symbol] = snapshot
    return snapshots
