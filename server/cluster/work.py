"""The work of the leader's feed: entries of the streams, and the steps in which they are published."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from server.cluster.wire import QUEUE, StreamEntry
from server.intake.answer import Reason
from server.intake.batch import MAX_NAME_LENGTH
from server.intake.objects import Line, read_object
from server.intake.queued import Queued, decode_queued, split
from server.invalid import InvalidRecords

STEP_OBJECTS = 500
"""Objects of one step, some 10 ms of work. A step costs 5 ms more, whatever its size."""


class Work(NamedTuple):
    """One entry of the queue, or some of `stream`. `id` is the last one's. Both are empty if the queue
    does not have the entry any more.
    """

    stream: str
    id: str
    entry: Queued
    lines: list[Line]


def queued_work(entry: StreamEntry, invalid: InvalidRecords) -> Work:
    """Return the work of one entry of the queue; none if it cannot be read."""
    try:
        found = decode_queued(entry.fields.get(b"b", b""))
    except ValueError as error:
        invalid.report("bus", QUEUE, str(error))
        found = Queued("", "", "", [])
    lines = [Line(number, each) for number, each in enumerate(found.objects, 1)]
    return Work(QUEUE, entry.id, found, lines)


def source_of(key: str) -> str:
    """Return the name of the source that a stream's objects have."""
    return key[:MAX_NAME_LENGTH]


def stream_work(key: str, entries: Sequence[StreamEntry]) -> list[Work]:
    """Return the work of entries with one object each."""
    missing = Reason("bad_json", "the entry has no field d")
    lines = [
        Line(number, read_object(entry.fields[b"d"]) if b"d" in entry.fields else missing)
        for number, entry in enumerate(entries, 1)
    ]
    name = Queued(source_of(key), "", "", [])
    return [
        Work(key, entries[stop - 1].id, name, lines[start:stop]) for start, stop in split(lines)
    ]


def steps_of(work: Sequence[Work]) -> Iterator[list[Work]]:
    """Return the work of each step, not too much of it. A status is the last object of its step."""
    step: list[Work] = []
    objects = 0
    for each in work:
        ends = step and step[-1].lines and step[-1].lines[-1].is_status
        if step and (ends or objects + len(each.lines) > STEP_OBJECTS):
            yield step
            step, objects = [], 0
        step.append(each)
        objects += len(each.lines)
    if step:
        yield step
