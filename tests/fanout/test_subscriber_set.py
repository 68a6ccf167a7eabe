"""Who is sent something: members come and go in any order, and each is there once."""

import random
import socket

from server.fanout.blocked_writers import BlockedWriters
from server.fanout.breaker import BreakerPolicy
from server.fanout.outbox import Outbox
from server.fanout.stats import FanoutStats
from server.fanout.subscriber_set import SubscriberSet


def test_audience_is_a_set():
    """Whatever the order of joining and leaving, also twice, it holds what a set of them holds."""
    stats, blocked_writers = FanoutStats(), BlockedWriters(BreakerPolicy())
    with socket.socket() as sock:
        outboxes = [Outbox(sock, stats, blocked_writers.start) for _ in range(50)]
        audience, expected = SubscriberSet(), set[Outbox]()
        choices = random.Random(1)
        for _ in range(2000):
            outbox = choices.choice(outboxes)
            if choices.random() < 0.5:
                audience.add(outbox)
                expected.add(outbox)
            else:
                audience.discard(outbox)
                expected.discard(outbox)
            assert len(audience) == len(expected)
            assert set(audience) == expected
            assert all((each in audience) == (each in expected) for each in outboxes)
        assert sorted(audience, key=id) == audience
