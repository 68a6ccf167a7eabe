"""The control channel between a supervisor and a worker."""

import socket

from server.workers.control import Channel, FromWorker, Sample


async def test_what_is_not_understood_is_left_out():
    """A roll may start a worker of another version: it does not end the supervisor."""
    ours, theirs = socket.socketpair()
    channel: Channel[FromWorker] = Channel(ours, FromWorker)
    sample = Sample(places=1, capacity=2, cpu=0.5, delivered=[3])
    with theirs:
        theirs.sendall(b'junk\n{"type":"news"}\n{"type":"sample","places":"many"}\n\xff\n')
        await Channel(theirs, FromWorker).send(sample)
    assert [message async for message in channel.receive()] == [sample]
    channel.close()
