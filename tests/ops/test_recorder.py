"""The recorder of the last hour, and how the hours of several workers become one."""

import math
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
import structlog
import trio
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from server.ops.families import counters, gauge, gauges
from server.ops.recorder import MAX_COLUMNS, POINTS, Recorder, Recording, merge, series


class Numbers(Collector):
    """Metrics as a server has them."""

    def __init__(self) -> None:
        self.connections = 3.0
        self.refused = {("at_capacity",): 10.0}
        self.lags: dict[tuple[str], float] = {}

    def collect(self) -> Iterator[Metric]:
        yield gauges(
            "market_data_connections", "", ["state"], {("active",): self.connections, ("idle",): 1}
        )
        yield counters("market_data_connections_rejected", "", ["reason"], self.refused)
        yield gauges("market_data_source_lag_seconds", "", ["source"], self.lags)
        yield gauge("market_data_leader", "", value=True)


@pytest.fixture
def numbers() -> Numbers:
    return Numbers()


@pytest.fixture
def recorder(numbers: Numbers, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Return a recorder for which ten seconds pass between two points."""
    clock = iter(range(10, 10_000_000, 10))
    monkeypatch.setattr("server.ops.recorder.perf_counter", lambda: next(clock))
    return Recorder(numbers, lambda: 0.0)


def columns(recorder: Recorder, since: int = 0) -> dict[str, list[float | None]]:
    return recorder.since(since).columns


def test_gauges_are_added_up_and_counters_become_rates(recorder, numbers):
    """The first point has no rates, as there is nothing to compare with."""
    recorder.sample(100, 0.25)
    numbers.connections = 5.0
    numbers.refused = {("at_capacity",): 30.0, ("unauthorized",): 5.0}
    recorder.sample(101, 0.5)
    found = columns(recorder)
    assert found["connections"] == [4.0, 6.0]
    assert found["refused"] == [None, 2.5]
    assert found["refused.at_capacity"] == [None, 2.0]
    assert found["refused.unauthorized"] == [None, 0.5]
    assert found["max.lag"] == [0.25, 0.5]


def test_only_new_points_are_told(recorder):
    """A reader that has the newest point gets none, and one that is an hour behind gets all."""
    for point in range(100, 105):
        recorder.sample(point, 0.0)
    assert [len(columns(recorder, since)["max.lag"]) for since in (0, 102, 104, 10**9)] == [
        5,
        2,
        0,
        0,
    ]


def test_an_hour_is_kept_and_no_more(recorder):
    """The memory is fixed, however long the server runs and however many sources there are."""
    for point in range(1, POINTS + 50):
        recorder.sample(point, float(point))
    points = columns(recorder)["max.lag"]
    assert (len(points), points[0], points[-1]) == (POINTS, 50.0, POINTS + 49.0)


def test_columns_are_bounded(recorder, numbers):
    """Sources beyond the limit have no column."""
    numbers.lags = {(f"source{number}",): 1.0 for number in range(MAX_COLUMNS)}
    recorder.sample(1, 0.0)
    assert len(columns(recorder)) == MAX_COLUMNS


def test_sources_leave_room_for_everything_else(recorder, numbers):
    """However often publishers choose new names, each reason of a refusal has its column."""
    for point in range(1, 6):
        numbers.lags = {(f"source{point}.{number}",): 1.0 for number in range(MAX_COLUMNS)}
        recorder.sample(point, 0.0)
    numbers.refused[("unauthorized",)] = 7.0
    recorder.sample(6, 0.0)
    recorder.sample(7, 0.0)
    found = columns(recorder)
    assert len(found) == MAX_COLUMNS
    assert {"refused.unauthorized", "connections", "max.lag", "max.health"} <= set(found)


def test_source_that_is_over_leaves_after_an_hour(recorder, numbers):
    """Until then its points are told."""
    numbers.lags = {("old",): 1.0}
    recorder.sample(1, 0.0)
    numbers.lags = {("new",): 2.0}
    for point in range(2, POINTS + 1):
        recorder.sample(point, 0.0)
    assert columns(recorder)["max.source_lag.old"][0] == 1.0
    for point in (POINTS + 1, POINTS + 2):
        recorder.sample(point, 0.0)
    assert "max.source_lag.old" not in columns(recorder)
    assert columns(recorder)["max.source_lag.new"][-1] == 2.0


async def test_metric_that_cannot_be_read_does_not_end_the_server(autojump_clock):
    """The log has the error, and the next point is tried."""
    looks = count()

    class Broken(Collector):
        def collect(self) -> Iterator[Metric]:
            raise RuntimeError(f"look {next(looks)}")

    recorder = Recorder(Broken(), lambda: 0.0)
    with structlog.testing.capture_logs() as lines, trio.move_on_after(35):
        await recorder.run()
    assert next(looks) >= 2
    assert {line["event"] for line in lines} == {"no point of the last hour was added"}


def test_pause_leaves_a_gap(recorder):
    """A machine that slept has no values for that time."""
    recorder.sample(100, 1.0)
    recorder.sample(103, 2.0)
    assert columns(recorder)["max.lag"] == [1.0, None, None, 2.0]


@pytest.mark.parametrize("point", [50, 100 + POINTS + 1])
def test_clock_that_is_set_begins_the_hour_anew(recorder, point):
    """Points of another time would be wrong."""
    recorder.sample(100, 1.0)
    recorder.sample(point, 2.0)
    assert columns(recorder)["max.lag"] == [2.0]


def test_waking_early_adds_no_second_point(recorder):
    """A point is taken once."""
    recorder.sample(100, 1.0)
    recorder.sample(100, 2.0)
    assert columns(recorder)["max.lag"] == [1.0]


def told(last: int, **found: list[float | None]) -> Recording:
    return Recording(last, {name.replace("__", "."): points for name, points in found.items()})


def test_workers_are_added_up_at_equal_times():
    """Counts are added up, and of delays the longest counts. A young worker counts from its start."""
    old = told(100, connections=[1.0, 2.0, 3.0], max__lag=[0.1, 0.9, 0.1])
    young = told(100, connections=[5.0], max__lag=[0.5])
    assert merge([old, young]).columns == {
        "connections": [1.0, 2.0, 8.0],
        "max.lag": [0.1, 0.9, 0.5],
    }


def test_worker_that_is_a_moment_ahead_waits():
    """The newest point is the newest that all workers have, so that no sum falls for a moment."""
    ahead = told(101, connections=[1.0, 2.0, 50.0])
    behind = told(100, connections=[3.0, 4.0])
    merged = merge([ahead, behind])
    assert (merged.last, merged.columns) == (100, {"connections": [4.0, 6.0]})


def test_worker_that_hangs_does_not_hold_up_the_others():
    """Its points end, and the others' go on."""
    merged = merge([told(101, connections=[1.0]), told(90, connections=[7.0])])
    assert (merged.last, merged.columns["connections"]) == (101, [1.0])


def test_no_worker_has_anything_yet():
    """A server that just started has series without points."""
    assert merge([Recording(0, {})]) == Recording(0, {})
    assert all(each.points == [] for each in series(merge([])))


def values(recording: Recording) -> dict[str, Any]:
    return {each.name: each.points for each in series(recording)}


def test_shares_and_percentiles_are_of_all_workers():
    """They are made from the sums, as neither can be added up."""
    buckets: dict[str, list[float | None]] = {
        f"delivery.{bound}": [10.0] for bound in (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
    }
    buckets |= {f"delivery.{bound}": [0.0] for bound in (0.001, 0.0025, 0.005)}
    buckets |= {f"delivery.{bound}": [10.0] for bound in ("2.5", "5.0", "+Inf")}
    one = Recording(7, {**buckets, "cache_hits": [3.0], "cache_misses": [1.0]})
    other = Recording(7, {**buckets, "cache_hits": [0.0], "cache_misses": [4.0]})
    found = values(merge([one, other]))
    assert found["cache_hits"] == [0.375]
    assert math.isclose(found["latency_p50"][0], 0.0075)
    assert found["database_time"] == [None]


def test_nothing_delivered_has_no_latency():
    """Zero would look like a very fast server."""
    found = values(
        Recording(1, {"delivery.+Inf": [0.0], "cache_hits": [0.0], "cache_misses": [0.0]})
    )
    assert (found["latency_p95"], found["cache_hits"]) == ([None], [None])
