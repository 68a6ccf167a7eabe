"""When workers are added and taken away: the decision by itself, on a clock of the tests."""

import pytest

from server.cluster.scaler import Load, ScalePolicy, Scaler, percentile
from server.fanout.stats import DELIVERY_BUCKETS

POLICY = ScalePolicy(minimum=1, maximum=3)

IDLE, BUSY = Load(0.1, 0.1, 0.01), Load(0.5, 0.5, 0.01)


def first_change(scaler, workers, load, start=1.0, seconds=120):
    """The decision that is not to hold and when it is made, looking once a second."""
    for second in range(seconds):
        decision = scaler.look(start + second, workers, load)
        if decision.action != "hold":
            return *decision, second
    return *decision, None


@pytest.mark.parametrize(
    ("load", "workers", "expected"),
    [
        (Load(0.81, 0.1, 0.0), 1, ("up", "connections", 10)),
        (Load(0.1, 0.81, 0.0), 1, ("up", "cpu", 10)),
        (Load(0.1, 0.1, 0.11), 1, ("up", "latency", 10)),
        (Load(0.8, 0.8, 0.1), 1, ("hold", "steady", None)),
        (Load(0.9, 0.1, 0.0), 3, ("hold", "maximum", None)),
        (IDLE, 2, ("down", "calm", 10)),
        (IDLE, 1, ("hold", "minimum", None)),
        (Load(0.31, 0.1, 0.0), 2, ("hold", "steady", None)),
        (Load(0.1, 0.31, 0.0), 2, ("hold", "steady", None)),
        (BUSY, 2, ("hold", "steady", None)),
    ],
)
def test_thresholds(load, workers, expected):
    """Each alone is enough to go up; to go down both shares have to be low."""
    assert first_change(Scaler(POLICY), workers, load) == expected


def test_what_does_not_last_counts_for_nothing():
    """One look within the limits, and the time begins anew."""
    scaler = Scaler(POLICY)
    over = Load(0.9, 0.1, 0.0)
    for second in range(1, 10):
        assert scaler.look(second, 1, over).action == "hold"
    scaler.look(10, 1, BUSY)
    assert first_change(scaler, 1, over, start=11) == ("up", "connections", 10)


def test_nothing_happens_in_the_cooldown():
    """After a change, or what else made workers anew, the load is looked at for a while only."""
    scaler = Scaler(POLICY)
    over = Load(0.9, 0.1, 0.0)
    assert first_change(scaler, 1, over) == ("up", "connections", 10)
    assert first_change(scaler, 2, over, start=11) == ("up", "connections", 30)


def test_nobody_leaves_for_whom_the_rest_has_no_room():
    """Two workers at 45 % are one at 90 %."""
    policy = ScalePolicy(minimum=1, maximum=3, down=0.5)
    assert first_change(Scaler(policy), 2, Load(0.45, 0.1, 0.0))[0] == "hold"
    assert first_change(Scaler(policy), 3, Load(0.45, 0.1, 0.0))[0] == "down"


def test_percentile_is_drawn_within_its_bucket():
    """As Prometheus does it; nothing seen is nothing late."""
    counts = [0] * (len(DELIVERY_BUCKETS) + 1)
    assert percentile(counts) == 0
    counts[DELIVERY_BUCKETS.index(0.1)] = 100
    assert percentile(counts) == pytest.approx(0.05 + 0.05 * 0.95)
    counts[-1] = 100
    assert percentile(counts) == DELIVERY_BUCKETS[-1]
