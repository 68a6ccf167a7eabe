"""Subscriber sets: members come and go in any order, and each is in once."""

import random
import socket

from server.fanout.blocked_writers import BlockedWriters
from server.fanout.breaker import BreakerPolicy
from server.fanout.outbox import Outbox
from server.fanout.stats import FanoutStats
from server.fanout.subscriber_set import SubscriberSet


def test_subscriber_set_is_a_set():
    """However members join and leave, also twice, it holds what a set of them holds."""
    stats, blocked_writers = FanoutStats(), BlockedWriters(BreakerPolicy())
    with socket.socket() as sock:
        outboxes = [Outbox(sock, stats, blocked_writers.start) for _ in range(50)]
        subscribers, expected = SubscriberSet(), set[Outbox]()
        choices = random.Random(1)
        for _ in range(2000):
            outbox = choices.choice(outboxes)
            if choices.random() < 0.5:
                subscribers.add(outbox)
                expected.add(outbox)
            else:
                subscribers.discard(outbox)
                expected.discard(outbox)
            assert len(subscribers) == len(expected)
            assert set(subscribers) == expected
            assert all((each in subscribers) == (each in expected) for each in outboxes)
        assert sorted(subscribers, key=id) == subscribers
