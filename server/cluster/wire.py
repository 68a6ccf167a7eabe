"""What instances tell each other through Redis: names of keys and channels, and what is in them."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from server.invalid import InvalidRecords
from server.quotes.quote import Move
from server.quotes.record import Decoder, filed_under, read_symbol
from server.quotes.snapshot import LiveSnapshot, Microseconds, Version, Whole

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

MAX_BATCH_BYTES = 4 * 1024 * 1024
"""Of one batch: BATCH_MOVES moves and as many snapshots with the longest names take half of that."""

Reason = Annotated[str, Meta(max_length=40, pattern=r"^[a-z_]*\Z")]
"""A reason of `status`, which every client is sent."""

Identity = Annotated[str, Meta(max_length=300)]
"""Of an instance: a host's name of up to 255 characters, its process and some random digits."""


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """What the leader publishes at once, as msgpack.

    `seq` grows by one with each batch of an epoch, and by two where moves before this one are only in
    the hash. `listed` are symbols that the leader tells of for the first time. `stale`: why the
    leader has no prices, empty if it has. `handover`: its identity if it leads no longer. `position`:
    the newest trade's time in microseconds since the Unix epoch, 0 before the first.
    """

    epoch: Whole
    seq: Whole
    moves: Sequence[Move] = ()
    listed: Sequence[LiveSnapshot] = ()
    stale: Reason = ""
    handover: Identity = ""
    position: Microseconds = 0


class Mark(msgspec.Struct, frozen=True):
    """Up to which batch the hash includes everything."""

    epoch: Version
    seq: Whole


class Stored(NamedTuple):
    """What Redis holds: without a `mark` no leader has written to it yet; `led`: there is a leader."""

    mark: Mark | None
    snapshots: Mapping[str, LiveSnapshot]
    led: bool


encode_batch = msgspec.msgpack.Encoder().encode
_batch_decoder = Decoder(Batch, "msgpack", MAX_BATCH_BYTES)

encode_json = msgspec.json.Encoder().encode
_snapshot_decoder = Decoder(LiveSnapshot, "json")
_mark_decoder = Decoder(Mark, "json")


def decode_batch(data: bytes, invalid: InvalidRecords) -> Batch | None:
    """None for what is no batch, whoever published it. A batch with one move that cannot be is none:
    who misses it reads the hash, and leaves out that symbol only.
    """
    batch = invalid.read("bus", CHANNEL, partial(_batch_decoder.decode, data))
    if batch is None or not batch.listed:
        return batch
    listed = [each for each in batch.listed if _is_symbol(each.symbol, invalid)]
    return (
        batch if len(listed) == len(batch.listed) else msgspec.structs.replace(batch, listed=listed)
    )


def decode_mark(data: bytes | str | None, invalid: InvalidRecords) -> Mark | None:
    """None where there is none, or something else."""
    return invalid.read("hash", META, partial(_mark_decoder.decode, data)) if data else None


def decode_snapshots(
    values: Iterable[tuple[bytes, bytes]], invalid: InvalidRecords
) -> dict[str, LiveSnapshot]:
    """The snapshots by symbol, of fields and their values, without what is none."""
    snapshots = {}
    for field, value in values:
        snapshot = invalid.read("hash", field, partial(_decode_snapshot, field, value))
        if snapshot is not None:
            snapshots[snapshot.symbol] = snapshot
    return snapshots


def decode_watched(members: Iterable[bytes], invalid: InvalidRecords) -> list[str]:
    """The symbols that are said to be watched."""
    symbols = (member.decode(errors="replace") for member in members)
    return [symbol for symbol in symbols if _is_symbol(symbol, invalid, "watched")]


def _decode_snapshot(field: bytes, value: bytes) -> LiveSnapshot:
    """Errors: BadRecord."""
    return filed_under(field.decode(errors="replace"), _snapshot_decoder.decode(value))


def _is_symbol(
    symbol: str, invalid: InvalidRecords, source: Literal["bus", "watched"] = "bus"
) -> bool:
    return invalid.read(source, symbol, partial(read_symbol, symbol)) is not None
