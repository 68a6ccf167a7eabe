"""The scaler's decisions alone, and their figures."""

import pytest

from server.histogram import DELIVERY_BUCKETS
from server.workers.scaler import Decision, Load, ScalePolicy, Scaler, percentile

POLICY = ScalePolicy(minimum=1, maximum=4, after=10, cooldown=30)

CALM = Load(0.1, 0.1, 0.001)
BUSY = Load(0.5, 0.5, 0.01)
FULL = Load(0.81, 0.1, 0.001)
HOT = Load(0.1, 0.81, 0.001)
SLOW = Load(0.1, 0.1, 0.11)


def verdicts(scaler: Scaler, times: range, workers: int, load: Load) -> list[Decision]:
    """Return the decision at each of these times."""
    return [scaler.look(now, workers, load) for now in times]


@pytest.mark.parametrize(
    ("workers", "load", "decision"),
    [
        (2, FULL, ("up", "connections")),
        (2, HOT, ("up", "cpu")),
        (2, SLOW, ("up", "latency")),
        (2, Load(0.8, 0.8, 0.1), ("hold", "steady")),
        (4, FULL, ("hold", "maximum")),
        (2, BUSY, ("hold", "steady")),
        (2, CALM, ("down", "calm")),
        (1, CALM, ("hold", "minimum")),
        (2, Load(0.3, 0.1, 0), ("hold", "steady")),
        (2, Load(0.1, 0.3, 0), ("hold", "steady")),
        (4, Load(0.29, 0.29, 0), ("down", "calm")),
    ],
)
def test_decision_after_a_load_has_lasted(workers, load, decision):
    """Each limit by itself adds a worker; both shares together remove one, within the bounds."""
    assert verdicts(Scaler(POLICY), range(11), workers, load)[-1] == decision


def test_no_worker_goes_whom_the_rest_has_no_room_for():
    """Two at 45 % would leave one at 90 %, which at once would call for two again."""
    policy = ScalePolicy(minimum=1, maximum=4, down=0.5)
    assert verdicts(Scaler(policy), range(11), 2, Load(0.45, 0.1, 0))[-1] == ("hold", "steady")
    assert verdicts(Scaler(policy), range(11), 2, Load(0.1, 0.45, 0))[-1] == ("hold", "steady")
    assert verdicts(Scaler(policy), range(11), 4, Load(0.45, 0.1, 0))[-1] == ("down", "calm")


def test_load_has_to_last():
    """One look below the limit starts the time anew. Different values may be over the limit."""
    scaler = Scaler(POLICY)
    assert set(verdicts(scaler, range(10), 1, FULL)) == {("hold", "rising")}
    assert scaler.look(10, 1, BUSY) == ("hold", "steady")
    assert set(verdicts(scaler, range(11, 16), 1, FULL)) == {("hold", "rising")}
    assert verdicts(scaler, range(16, 22), 1, HOT)[-2:] == [("hold", "rising"), ("up", "cpu")]


def test_cooldown_follows_each_change():
    """Load that lasts through the cooldown adds the next worker right after it."""
    scaler = Scaler(POLICY)
    assert verdicts(scaler, range(11), 1, FULL)[-1] == ("up", "connections")
    assert set(verdicts(scaler, range(11, 40), 2, FULL)) == {("hold", "cooldown")}
    assert scaler.look(40, 2, FULL) == ("up", "connections")
    scaler.changed(50)
    assert scaler.look(79, 2, FULL) == ("hold", "cooldown")


def test_while_one_leaves_none_follows_but_one_may_come():
    """Its clients are not counted elsewhere yet; still, load that lasts adds a worker."""
    scaler = Scaler(POLICY)
    for now in range(20):
        assert scaler.look(now, 2, CALM, leaving=True) == ("hold", "steady")
    assert [scaler.look(now, 2, FULL, leaving=True) for now in range(20, 31)][-1].action == "up"


@pytest.mark.parametrize(
    ("counts", "seconds"),
    [
        ({}, 0.0),
        ({0: 100}, 0.00095),
        ({0: 95, 6: 5}, 0.001),
        ({0: 90, 6: 10}, 0.075),
        ({0: 90, 12: 10}, 5.0),
    ],
)
def test_percentile_is_prometheus_s(counts, seconds):
    """Interpolated within its bucket; the last bound if it is beyond that."""
    by_bucket = [counts.get(number, 0) for number in range(len(DELIVERY_BUCKETS) + 1)]
    assert percentile(by_bucket) == pytest.approx(seconds)
