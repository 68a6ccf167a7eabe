"""`serve --workers auto`: workers come and go with their load, and no client is lost."""

import signal
from contextlib import ExitStack

from tests.cluster.checked import Seen
from tests.cluster.followers import converge, faults, followers, report, still_read
from tests.processes import eventually
from tests.workers.host import Host

SCALE_TIMEOUT = 60.0
"""Seconds on a busy machine for a start, or for sending clients away, which take ten."""

QUICK = {
    "SCALE_AFTER": "1s",
    "SCALE_COOLDOWN": "1s",
    "PRICE_UPDATE_INTERVAL": "200ms",
    # The machine is busy with other tests: only connections may count.
    "SCALE_UP_CPU": "100",
    "SCALE_UP_LATENCY": "1h",
}


SYMBOLS = "AAPL,MSFT"


def serving(host: Host) -> int:
    """Return the number of workers that serve, by the metrics."""
    return int(host.metric('market_data_workers{state="serving"}'))


def test_workers_come_with_connections_and_go_with_them(tmp_path, redis):
    """Beyond the share of places one comes, below it the youngest goes; its clients are sent to the
    others by `reconnect` and 1001, and lose nothing else.
    """
    variables = QUICK | {
        "WS_MAX_CONNECTIONS": "200",
        "SCALE_UP_CONNECTIONS": "60",
        "WORKERS_MAX": "3",
    }
    seen: Seen = {}
    with Host(tmp_path, redis, "auto", **variables) as host:
        with ExitStack() as stack:
            staying = stack.enter_context(followers(host, 60, SYMBOLS, seen))
            assert len(host.events("worker started")) == 1
            with followers(host, 70, SYMBOLS, seen) as crowd:  # 130 of 200, then of 400
                host.await_event("worker serves", 2)
                decision = host.await_event("scaling")
                assert (decision["action"], decision["reason"]) == ("up", "connections")
                assert decision["connections"] > 0.6
                sample = 'market_data_scaler_decisions_total{action="up",reason="connections"}'
                assert host.metric(sample) == 1
                assert serving(host) == 2
                # New clients come to both workers: then some have to be sent back to the first.
                staying += stack.enter_context(followers(host, 40, SYMBOLS, seen))
                still_read(crowd)
            assert not faults(crowd)
            eventually(lambda: len(host.events("scaling")) >= 2, SCALE_TIMEOUT)
            down = host.events("scaling")[-1]
            assert (down["action"], down["reason"]) == ("down", "calm")
            assert host.await_event("worker retires")["worker"] == 2, "the youngest goes"
            host.await_event("stopped", worker=2)
            assert serving(host) == 1
            still_read(staying)
            converge(redis, staying, seen)
            report("scaled down", staying)
            assert not faults(staying)
        load = 'market_data_scaler_load{signal="connections"}'
        eventually(lambda: host.metric(load) < 0.5)
        assert not [line for line in host.log_lines() if line["level"] == "error"]
        assert host.stop() == 0


def test_processor_time_calls_for_workers_up_to_the_most(tmp_path, redis):
    """With the most workers, one log line reports too much load instead."""
    variables = QUICK | {"SCALE_UP_CPU": "0.2", "SCALE_DOWN": "0.1", "WORKERS_MAX": "2"}
    with Host(tmp_path, redis, "auto", **variables) as host, followers(host, 4, "*") as crowd:
        assert host.await_event("scaling")["reason"] == "cpu"
        host.await_event("worker serves", 2)
        host.await_event("too much load for so many workers")
        still_read(crowd)
        assert len(host.events("worker started")) == 2
        assert not faults(crowd)


def test_latency_calls_for_workers(tmp_path, redis):
    """The scaler sees the 95th percentile of all workers' deliveries."""
    variables = QUICK | {"SCALE_UP_LATENCY": "0.001ms", "WORKERS_MAX": "2"}
    with Host(tmp_path, redis, "auto", **variables) as host, followers(host, 4) as crowd:
        assert host.await_event("scaling")["reason"] == "latency"
        host.await_event("worker serves", 2)
        assert host.metric('market_data_scaler_load{signal="latency"}') > 0
        assert not faults(crowd)


def test_least_number_is_there_from_the_start_and_survives_a_roll(tmp_path, redis):
    """WORKERS_MIN workers run even without load."""
    variables = QUICK | {"WORKERS_MIN": "2", "WORKERS_MAX": "3"}
    with Host(tmp_path, redis, "auto", **variables) as host:
        eventually(lambda: [line["worker"] for line in host.events("worker serves")] == [1, 2])
        eventually(
            lambda: (
                host.metric('market_data_scaler_decisions_total{action="hold",reason="minimum"}')
                > 0
            ),
            SCALE_TIMEOUT,
        )
        host.process.send_signal(signal.SIGHUP)
        host.await_event("rolled")
        assert serving(host) == 2
        assert not host.events("scaling")
