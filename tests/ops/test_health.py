"""The report of `/health` during a problem and after it."""

import json
import time
from functools import partial
from typing import Any

import msgspec
import pytest
import structlog
import trio

from server.fanout.freshness import FEED_QUIET
from server.fanout.hub import Hub
from server.gateway.pool import Pool
from server.ops.health import (
    MIN_ATTEMPTS,
    Finding,
    Health,
    HealthMonitor,
    _Share,
    check_feed,
    check_lag,
    check_pool,
)
from server.ops.pages import HealthReport
from tests.gateway.wire import Client, RawClient, head, new_user
from tests.processes import START_TIMEOUT, ServerProcess, eventually, make_token
from tests.publisher import post


def health(server: ServerProcess) -> dict[str, Any]:
    """Return the report for an operator with a token."""
    status, body = server.ask("/health", role="admin")
    assert status == 200
    report: dict[str, Any] = body
    return report


def short_form(report: dict[str, Any]) -> dict[str, Any]:
    """Return a report without its details about addresses, roles and databases."""
    components = {name: {"status": each["status"]} for name, each in report["components"].items()}
    checks = [{"at": each["at"], "status": each["status"]} for each in report["checks"]]
    return report | {"components": components, "checks": checks}


def filled(places: int, taken: int) -> Pool:
    pool = Pool(places, places)
    for _ in range(taken):
        pool.reserve()
    return pool


@pytest.mark.parametrize(
    ("taken", "expected"),
    [(0, Health.HEALTHY), (80, Health.HEALTHY), (81, Health.DEGRADED), (96, Health.UNHEALTHY)],
)
def test_pool_is_graded_by_its_use(taken, expected):
    """More than 80 % of the places is degraded, more than 95 % unhealthy."""
    assert check_pool(filled(100, taken)).health is expected


@pytest.mark.parametrize(
    ("failed", "expected"),
    [(5, Health.HEALTHY), (6, Health.DEGRADED), (21, Health.UNHEALTHY), (51, Health.CRITICAL)],
)
def test_errors_are_graded_by_their_share(failed, expected):
    """The limits are 5, 20 and 50 percent of the attempts since the last check."""
    count = [0, 0]
    share = _Share(lambda: (count[0], count[1]), "failed")
    count[:] = [failed, 100]
    assert share().health is expected
    assert share().health is Health.HEALTHY
    count[:] = [failed + MIN_ATTEMPTS - 1, 100 + MIN_ATTEMPTS - 1]
    assert share().health is Health.HEALTHY


def test_lag_is_graded():
    """A late event loop is degraded, then unhealthy."""
    assert [check_lag(lag).health for lag in (0.05, 0.2, 2)] == [
        Health.HEALTHY,
        Health.DEGRADED,
        Health.UNHEALTHY,
    ]


def test_quiet_feed_is_no_dead_feed():
    """A quiet feed is only degraded: at night nothing trades."""
    hub = Hub([])
    assert check_feed(hub).health is Health.HEALTHY
    hub.set_status("stale", FEED_QUIET)
    assert check_feed(hub).health is Health.DEGRADED
    hub.set_status("stale", "feed_failed")
    assert check_feed(hub).health is Health.CRITICAL


def test_a_change_is_one_line():
    """The service has its worst component's health. Only changes are logged, with reasons."""
    findings = {"store": Finding(Health.HEALTHY, "fine"), "bus": Finding(Health.HEALTHY, "fine")}
    monitor = HealthMonitor(
        {"store": lambda: findings["store"], "bus": lambda: findings["bus"]}, interval=30
    )
    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            monitor.check()
        findings["bus"] = Finding(Health.CRITICAL, "no messages for 9 s")
        findings["store"] = Finding(Health.DEGRADED, "slow")
        for _ in range(3):
            monitor.check()
        findings["bus"] = findings["store"] = Finding(Health.HEALTHY, "fine")
        for _ in range(200):
            monitor.check()
    assert [(line["was"], line["health"]) for line in lines] == [
        ("healthy", "critical"),
        ("critical", "healthy"),
    ]
    assert lines[0]["reasons"] == ["store: slow", "bus: no messages for 9 s"]
    checks = monitor.report()["checks"]
    assert isinstance(checks, list)
    assert len(checks) == 100


async def test_check_that_fails_does_not_end_the_server(autojump_clock):
    """The log has the error, and the components are checked again."""
    looks = iter(["a bug", "slow"])

    def check() -> Finding:
        detail = next(looks)
        if detail == "a bug":
            raise RuntimeError(detail)
        return Finding(Health.DEGRADED, detail)

    monitor = HealthMonitor({"store": check}, interval=30)
    with structlog.testing.capture_logs() as lines, trio.move_on_after(45):
        await monitor.run()
    assert [line["event"] for line in lines] == ["health was not checked", "health changed"]
    assert monitor.health is Health.DEGRADED


def test_server_tells_how_it_is(tmp_path):
    """A full pool shows in `/health`, the metric and the log, and so does its end."""
    with ServerProcess(
        tmp_path, WS_MAX_CONNECTIONS="1", WS_HEALTH_CHECK_INTERVAL="500ms"
    ) as server:
        eventually(lambda: health(server)["status"] == "healthy")
        assert set(health(server)["components"]) >= {"pool", "errors", "event_loop", "feed"}
        with Client(server, "AAPL", token=make_token(new_user())):
            eventually(lambda: health(server)["status"] == "unhealthy")
            assert health(server)["components"]["pool"]["status"] == "unhealthy"
            eventually(lambda: server.metric('market_data_health{status="unhealthy"}') == 1)
            eventually(partial(is_critical_when_all_are_refused, server), START_TIMEOUT)
        eventually(lambda: health(server)["status"] == "healthy")
        assert len(health(server)["checks"]) > 3
        server.await_event("health changed", health="healthy")
        changes = server.events("health changed")
    of_pool = [line for line in changes if any("pool" in reason for reason in line["reasons"])]
    assert of_pool[0]["health"] == "unhealthy"
    assert changes[-1]["health"] == "healthy"


def is_critical_when_all_are_refused(server: ServerProcess) -> bool:
    """Have the server refuse enough clients for a share of them; whether it was ever critical."""
    for _ in range(MIN_ATTEMPTS * 3):
        with RawClient(server, head("/ws/quotes?token=x")) as refused:
            assert refused.answer().status == 503
    return any(check["status"] == "critical" for check in health(server)["checks"])


def test_details_are_for_administrators(tmp_path):
    """Without a token, and with another role's, the answer has no reasons; a bad token is 401."""
    url = "postgresql://nobody@127.0.0.1:1/canary"
    with ServerProcess(tmp_path, DATABASE_URL=url, WS_HEALTH_CHECK_INTERVAL="1h") as server:
        report = health(server)
        assert report["components"]["pool"]["detail"]
        for status, answered in (server.ask("/health"), server.ask("/health", role="publisher")):
            assert (status, answered) == (200, short_form(report))
        for headers in ({}, {"Authorization": "Basic YTpi"}):
            status, body = server.request("GET", "/health", **headers)
            assert (status, json.loads(body)) == (200, short_form(report))
        expired = make_token("ops", -1, role="admin")
        for bad in ("Bearer", "Bearer x", f"bearer {expired}"):
            status, body = server.request("GET", "/health", Authorization=bad)
            assert (status, json.loads(body)["error"]["code"]) == (401, "unauthorized")
        for path in ("/readyz", "/health", "/market-data?symbols=AAPL"):
            _, body = server.request("GET", path, Authorization=f"Bearer {make_token()}")
            assert "127.0.0.1" not in body
            assert "Postgres" not in body


def test_everybody_sees_how_sources_do_now(tmp_path):
    """The numbers of publishing are of the moment of the request, and need no token."""
    with ServerProcess(
        tmp_path,
        FEED="push",
        PRICE_BAND="10%",
        PUSH_LISTS_SYMBOLS="1",
        WS_HEALTH_CHECK_INTERVAL="1h",
    ) as server:
        none = {"held": 0, "dropped": 0, "sources": {}}
        assert json.loads(server.get("/health")[1])["publishing"] == none
        near = {"symbol": "NEW", "price": 100, "ts": time.time_ns() // 1000 - 2_000_000}
        post(server, [near, near | {"price": 200}], Source="sip")
        for report in (json.loads(server.get("/health")[1]), health(server)):
            assert (report["publishing"]["held"], report["publishing"]["dropped"]) == (1, 0)
            assert set(report["publishing"]["sources"]) == {"sip"}
            sip = report["publishing"]["sources"]["sip"]
            assert 2 <= sip["lag"] < 60
            assert 0 < sip["rate"] <= 0.2
            assert 0 < sip["silence"] < 60
            msgspec.convert(report, HealthReport)
    with ServerProcess(tmp_path) as server:
        assert "publishing" not in health(server)


def test_dead_feed_is_critical(tmp_path):
    """A feed that has ended is critical."""
    tape = tmp_path / "tape.csv"
    tape.write_text("timestamp_ms,symbol,price,size\n")
    with ServerProcess(tmp_path, FEED=f"replay:{tape}", WS_HEALTH_CHECK_INTERVAL="50ms") as server:
        eventually(lambda: health(server)["status"] == "critical")
        assert "feed" in health(server)["checks"][-1]["reasons"][0]
