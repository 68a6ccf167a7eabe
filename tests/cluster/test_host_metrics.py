"""`/metrics` of a machine with workers: whoever answers, it tells of all."""

import re

from tests.cluster.followers import faults, followers
from tests.cluster.host import Host, end_of
from tests.gateway.wire import eventually


def connections(page: str) -> dict[str, float]:
    """Open connections by worker."""
    found: dict[str, float] = {}
    for line in page.splitlines():
        if line.startswith("market_data_connections{"):
            worker = re.search('worker="([^"]*)"', line)
            assert worker, line
            found[worker[1]] = found.get(worker[1], 0) + float(line.rpartition(" ")[2])
    return found


def test_page_counts_every_worker_s_connections(tmp_path, redis):
    """Each has its label, one can be asked for by itself, and who does not answer is said to be so."""
    with Host(tmp_path, redis, 2) as host, followers(host, 12):
        eventually(lambda: sum(connections(host.get("/metrics")[1]).values()) == 12)
        page = host.get("/metrics")[1]
        assert set(connections(page)) == {"1", "2"}
        assert page.count("# TYPE market_data_connections_total ") == 1
        assert host.metric('market_data_workers{state="serving"}') == 2
        assert host.metric('market_data_worker_up{worker="2"}') == 1
        assert 'process_resident_memory_bytes{worker="supervisor"}' in page
        status, own = host.get("/metrics?worker=2")
        assert status == 200
        assert "worker=" not in own
        assert host.get("/metrics?worker=7")[0] == 404
        host.kill(1)
        host.await_event("worker ended")
        assert host.metric('market_data_worker_up{worker="1"}') == 0
        host.await_event("worker serves", 2, worker=1)
        assert host.metric("market_data_worker_restarts_total") == 1


def test_scaler_adds_a_worker_under_load_and_takes_it_away_after(tmp_path, redis):
    """Decisions are lines and metrics; nobody loses a connection without being sent away."""
    variables = {
        "WS_MAX_CONNECTIONS": "20", "SCALE_UP_CONNECTIONS": "50", "SCALE_UP_CPU": "100",
        "SCALE_UP_LATENCY": "30s", "SCALE_DOWN": "30", "SCALE_AFTER": "1s",
        "SCALE_COOLDOWN": "2s", "WORKERS_MAX": "2",
    }  # fmt: skip
    with Host(tmp_path, redis, "auto", **variables) as host:
        assert len(host.pids) == 1
        with followers(host, 4) as staying:
            with followers(host, 10):
                line = host.await_event("scaling")
                assert (line["action"], line["reason"]) == ("up", "connections")
                host.await_event("worker serves", 1, worker=2)
            line = host.await_event("scaling", 2)
            assert (line["action"], line["reason"]) == ("down", "calm")
            host.await_event("stopped", worker=2)
            end_of([host.pid(2)], 5)
            eventually(lambda: host.metric('market_data_workers{state="serving"}') == 1)
            eventually(lambda: connections(host.get("/metrics")[1]) == {"1": 4})
            assert not faults(staying)
            up = 'market_data_scaler_decisions_total{action="up",reason="connections"}'
            assert host.metric(up) == 1
            assert host.metric('market_data_scaler_load{signal="connections"}') > 0
