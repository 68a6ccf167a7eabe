"""Connections with the same frames share one joined chunk in a round."""

from typing import Any, cast

from server.fanout.flusher import Joiner
from server.fanout.hub import Hub
from server.pacing import wait_until
from tests.fanout.peer import instruments, publish


def test_same_frames_are_joined_once():
    """The next connection with the same frames gets the same bytes, from another list too."""
    join = Joiner().join
    queue = [b"a" * 50, b"b" * 50]
    first = join(queue)
    assert first == b"a" * 50 + b"b" * 50
    assert join([*queue]) is first


def test_queue_that_is_cleared_and_filled_again_is_joined_anew():
    """A connection clears its queue after the write and fills the same list again."""
    join = Joiner().join
    queue = [b"a", b"b"]
    assert join(queue) == b"ab"
    queue.clear()
    queue += [b"a", b"c"]
    assert join(queue) == b"ac"
    queue.append(b"d")
    assert join(queue) == b"acd"
    assert join([b"ac", b"d"]) == b"acd"


class Sink:
    """A socket that keeps what it is given."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def send(self, data: bytes) -> int:
        """Take all."""
        self.writes.append(data)
        return len(data)


async def test_round_writes_one_chunk_to_all_with_the_same_symbols(nursery):
    """Subscribers of the same two symbols are given the very same bytes, and others their own."""
    hub = Hub(instruments("A", "B"))
    await nursery.start(hub.run)
    sinks = [Sink() for _ in range(4)]
    for sink, symbols in zip(sinks, ("AB", "AB", "A", "AB"), strict=True):
        outbox = hub.attach(cast("Any", sink))
        for symbol in symbols:
            hub.subscribe(outbox, hub.topics[symbol])
    publish(hub, "A", 101.0)
    publish(hub, "B", 102.0)
    await wait_until(lambda: hub.stats.messages_sent == 7)
    (first,), (second,), (alone,), (last,) = (sink.writes for sink in sinks)
    assert first is second
    assert first == last
    assert first.startswith(alone)
    assert len(first) > len(alone)
