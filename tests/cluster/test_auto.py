"""`serve --workers auto`: workers come and go with their load, and no client is lost by it."""

import signal

from tests.cluster.followers import Follower, faults, followers
from tests.cluster.host import Host
from tests.gateway.wire import eventually

SCALE_TIMEOUT = 60.0
"""Seconds on a busy machine for what takes ten: a start, or clients that are sent away."""

QUICK = {
    "SCALE_AFTER": "1s",
    "SCALE_COOLDOWN": "1s",
    "PRICE_UPDATE_INTERVAL": "100ms",
    # The machine of the tests is busy with others: only connections are to count.
    "SCALE_UP_CPU": "100",
    "SCALE_UP_LATENCY": "1h",
}


def serving(host: Host) -> int:
    """How many workers serve, by the metrics."""
    return int(host.metric('market_data_workers{state="serving"}'))


def still_read(crowd: list[Follower]) -> None:
    """Wait until each has got more messages."""
    before = [follower.messages for follower in crowd]
    eventually(lambda: all(f.messages > n + 3 for f, n in zip(crowd, before, strict=True)))


def test_workers_come_with_connections_and_go_with_them(tmp_path, redis):
    """Beyond the share of places one comes, below it the youngest goes; its clients are sent to the
    others by `reconnect` and 1001, and lose nothing else.
    """
    variables = QUICK | {
        "WS_MAX_CONNECTIONS": "40",
        "SCALE_UP_CONNECTIONS": "50",
        "WORKERS_MAX": "3",
    }
    with Host(tmp_path, redis, "auto", **variables) as host:
        with followers(host, 8) as staying:
            assert len(host.events("worker started")) == 1
            with followers(host, 26) as crowd:  # 34 of 40, then of 80
                host.await_event("worker serves", 2)
                decision = host.await_event("scaling")
                assert (decision["action"], decision["reason"]) == ("up", "connections")
                assert decision["connections"] > 0.5
                assert (
                    host.metric(
                        'market_data_scaler_decisions_total{action="up",reason="connections"}'
                    )
                    == 1
                )
                assert serving(host) == 2
                still_read(crowd)
                # So many new ones come to both, and then some have to be sent back to the first.
                with followers(host, 8):
                    pass
            assert not faults(crowd)
            eventually(lambda: len(host.events("scaling")) >= 2, SCALE_TIMEOUT)
            down = host.events("scaling")[-1]
            assert (down["action"], down["reason"]) == ("down", "calm")
            assert host.await_event("worker retires")["worker"] == 2, "the youngest goes"
            eventually(lambda: serving(host) == 1, SCALE_TIMEOUT)
            still_read(staying)
            assert not faults(staying)
        assert host.metric('market_data_scaler_load{signal="connections"}') < 0.5
        assert not [line for line in host.log_lines() if line["level"] == "error"]
        assert host.stop() == 0


def test_processor_time_calls_for_workers_up_to_the_most(tmp_path, redis):
    """At the most it is said, once, that there is too much load, instead."""
    variables = QUICK | {"SCALE_UP_CPU": "0.2", "SCALE_DOWN": "0.1", "WORKERS_MAX": "2"}
    with Host(tmp_path, redis, "auto", **variables) as host, followers(host, 4, "*") as crowd:
        assert host.await_event("scaling")["reason"] == "cpu"
        host.await_event("worker serves", 2)
        host.await_event("too much load for so many workers")
        still_read(crowd)
        assert len(host.events("worker started")) == 2
        assert not faults(crowd)


def test_latency_calls_for_workers(tmp_path, redis):
    """The 95th percentile of all workers' deliveries."""
    variables = QUICK | {"SCALE_UP_LATENCY": "0.001ms", "WORKERS_MAX": "2"}
    with Host(tmp_path, redis, "auto", **variables) as host, followers(host, 4) as crowd:
        assert host.await_event("scaling")["reason"] == "latency"
        host.await_event("worker serves", 2)
        assert host.metric('market_data_scaler_load{signal="latency"}') > 0
        assert not faults(crowd)


def test_least_number_is_there_from_the_start_and_survives_a_roll(tmp_path, redis):
    """WORKERS_MIN workers, however little there is to do."""
    variables = QUICK | {"WORKERS_MIN": "2", "WORKERS_MAX": "3"}
    with Host(tmp_path, redis, "auto", **variables) as host:
        assert [line["worker"] for line in host.events("worker serves")] == [1, 2]
        eventually(
            lambda: host.metric(
                'market_data_scaler_decisions_total{action="hold",reason="minimum"}'
            ) > 0,
            SCALE_TIMEOUT,
        )  # fmt: skip
        host.process.send_signal(signal.SIGHUP)
        host.await_event("rolled")
        assert serving(host) == 2
        assert not host.events("scaling")
