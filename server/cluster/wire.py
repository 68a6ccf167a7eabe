"""The keys and channels in Redis through which instances talk, and their contents."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from server.cluster.steps import EntryName
from server.intake.market import Notice
from server.invalid import InvalidRecords
from server.quotes.record import Decoder, filed_under, read_symbol
from server.quotes.snapshot import LiveSnapshot, Microseconds, Version, Whole
from server.quotes.traded import Closing
from server.quotes.update import NOWHERE, FeedPosition, Move

CHANNEL = "price_updates"
"""Every batch of the leader is published here."""

PROBE_CHANNEL = "quotestream:probe:"
"""An instance's identity follows. Each gets only its own probes, or there would be N² of them."""

LEADER = "quotestream:leader"
"""The identity of the leader while its lease lasts."""

EPOCH = "quotestream:epoch"
"""The newest leader's epoch. Redis refuses batches of others."""

QUOTES = "quotestream:quotes"
"""A hash: symbol -> `LiveSnapshot` as JSON, and META -> `Mark` as JSON."""

META = "meta"
"""A field that cannot be a symbol: those are in upper case."""

WATCHED = "quotestream:watched"
"""A sorted set: symbol -> when it was last reported as watched, in ms of Redis' clock."""

PAGE_FIELDS = 1000
"""Symbols read from the hash, or written to it, in one step: some 5 ms of Redis' time."""

MAX_BATCH_BYTES = 4 * 1024 * 1024
"""Of one batch: BATCH_MOVES moves and as many snapshots with the longest names take half of that."""

Reason = Annotated[str, Meta(max_length=40, pattern=r"^[a-z_]*\Z")]
"""A reason of `status`, which every client is sent."""

Identity = Annotated[str, Meta(max_length=300)]
"""Of an instance: a host's name of up to 255 characters, its process and some random digits."""


INTAKE = "quotestream:intake"
"""A hash: symbol -> how far its sources have come, and `position:KEY` -> the last entry read of KEY."""

MARKETS = "quotestream:markets"
"""A hash: symbol -> `[status, reason]` as JSON of a market that is halted or closed."""

IDS = "quotestream:ids"
"""A stream of the ids that were counted: 8 bytes each, those of one step in one entry."""

KEPT = "quotestream:kept"
"""A stream of what happened to kept trades, that of one step in one entry of
`server/intake/kept_log.py`.
"""

ANSWER = "quotestream:answer:"
"""The hash of an idempotency key follows. The first answer to it, as JSON."""

QUEUE = "quotestream:prices"
"""A stream of published objects for the leader, in entries of `server/intake/queued.py`."""


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """One publication of the leader, as msgpack.

    `seq` grows by one with each batch of an epoch, and by two if moves before this batch are only in
    the hash. `listed` are symbols that the leader publishes for the first time. `stale`: why the leader
    has no prices, empty if it has. `handover`: its identity if it no longer leads. `newest_us` is 0:
    earlier versions had a time there, and do not read a batch without it. `position`: the next leader's
    feed goes on from there, as this batch and the ones before it have all earlier rows. `markets` were
    halted, closed or opened after the moves. `states` and `positions` are those of `Step`: a follower
    that becomes the leader of a Redis that lost its last data needs them. `closing` comes after
    the moves.
    """

    epoch: Whole
    seq: Whole
    moves: Sequence[Move] = ()
    listed: Sequence[LiveSnapshot] = ()
    stale: Reason = ""
    handover: Identity = ""
    newest_us: Microseconds = 0
    position: FeedPosition = NOWHERE
    markets: tuple[Notice, ...] = ()
    states: Mapping[str, bytes] = msgspec.field(default_factory=dict)
    positions: Mapping[str, EntryName] = msgspec.field(default_factory=dict)
    closing: Closing = Closing()


class Mark(msgspec.Struct, frozen=True):
    """The last batch that the hash includes. `closing` is of its bars."""

    epoch: Version
    seq: Whole
    position: FeedPosition = NOWHERE
    closing: Closing = Closing()


class Stored(NamedTuple):
    """The state in Redis. Without a `mark`, no leader has written yet. `led`: there is a leader.
    `markets`: those that are not open.
    """

    mark: Mark | None
    snapshots: Mapping[str, LiveSnapshot]
    led: bool
    markets: Sequence[Notice] = ()

    @property
    def closing(self) -> Closing:
        """The closing that the hash includes."""
        return self.mark.closing if self.mark else Closing()


class StreamEntry(NamedTuple):
    """One entry of a stream."""

    id: str
    fields: Mapping[bytes, bytes]


encode_batch = msgspec.msgpack.Encoder().encode
_batch_decoder = Decoder(Batch, "msgpack", MAX_BATCH_BYTES)

_snapshot_decoder = Decoder(LiveSnapshot, "json")
_mark_decoder = Decoder(Mark, "json")
_market_decoder = msgspec.json.Decoder(Notice)


def decode_batch(data: bytes, invalid: InvalidRecords) -> Batch | None:
    """Return a batch, or None if the data are not a valid one.

    One impossible move makes the whole batch invalid. Followers then miss it and read the hash, where
    they leave out that symbol only.
    """
    batch = invalid.read("bus", CHANNEL, partial(_batch_decoder.decode, data))
    if batch is None or not batch.listed:
        return batch
    listed = [each for each in batch.listed if _is_symbol(each.symbol, invalid)]
    return (
        batch if len(listed) == len(batch.listed) else msgspec.structs.replace(batch, listed=listed)
    )


def decode_mark(data: bytes | str | None, invalid: InvalidRecords) -> Mark | None:
    """Return the mark, or None if it is missing or not valid."""
    return invalid.read("hash", META, partial(_mark_decoder.decode, data)) if data else None


def decode_snapshots(
    values: Iterable[tuple[bytes, bytes]], invalid: InvalidRecords
) -> dict[str, LiveSnapshot]:
    """Return the valid snapshots of fields and their values, by symbol."""
    snapshots = {}
    for field, value in values:
        snapshot = invalid.read("hash", field, partial(_decode_snapshot, field, value))
        if snapshot is not None:
            snapshots[snapshot.symbol] = snapshot
    return snapshots


def decode_markets(values: Iterable[tuple[bytes, bytes]], invalid: InvalidRecords) -> list[Notice]:
    """Return the valid ones of the hash MARKETS."""
    found = []
    for field, value in values:
        try:
            found.append(_market_decoder.decode(value))
        except (ValueError, RecursionError) as error:
            invalid.report("hash", field, str(error))
    return found


def decode_watched(members: Iterable[bytes], invalid: InvalidRecords) -> list[str]:
    """Return the valid symbols of those reported as watched."""
    symbols = (member.decode(errors="replace") for member in members)
    return [symbol for symbol in symbols if _is_symbol(symbol, invalid, "watched")]


def _decode_snapshot(field: bytes, value: bytes) -> LiveSnapshot:
    """Errors: BadRecord."""
    return filed_under(field.decode(errors="replace"), _snapshot_decoder.decode(value))


def _is_symbol(
    symbol: str, invalid: InvalidRecords, source: Literal["bus", "watched"] = "bus"
) -> bool:
    return invalid.read(source, symbol, partial(read_symbol, symbol)) is not None
