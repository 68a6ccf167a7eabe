"""Each metric moves with the events that it counts, and is documented."""

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.gateway.wire import Client, RawClient, head, new_user
from tests.ops.documented import ROOT, documented, unmatched
from tests.processes import ServerProcess, eventually, make_token

FAMILY = re.compile(r'(counters?|gauges?|histograms?|\w+MetricFamily)\(\s*"(market_data_\w+)"')
"""A call that makes a family of metrics, with the family's kind and name."""


def declared() -> set[str]:
    """Return all metrics in the server's source, named as on the page.

    A running server shows only some: others need Postgres, Redis, several workers or a trade.
    """
    sources = (path.read_text() for path in (ROOT / "server").rglob("*.py"))
    families = [match for source in sources for match in FAMILY.findall(source)]
    return {f"{name}_total" if "ounter" in kind else name for kind, name in families}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """Start an unused server that moves prices often."""
    folder = tmp_path_factory.mktemp("metrics")
    with ServerProcess(folder, PRICE_UPDATE_INTERVAL="20ms", LOG_LEVEL="debug") as process:
        yield process


def samples(server: ServerProcess) -> dict[str, float]:
    """Return all samples by name and labels, as a Prometheus server reads them."""
    found = {}
    for family in text_string_to_metric_families(server.get("/metrics")[1]):
        assert family.documentation
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def test_everything_is_counted(fresh):
    """A connection, its updates, a command, a refusal and a close each move their metric."""
    before = samples(fresh)
    with Client(fresh, "AAPL,MSFT", token=make_token(new_user())) as client:
        for _ in range(20):
            client.receive()
        client.ask("ping")
        client.ask("subscribe", symbols=["NOPE"])
        during = samples(fresh)
    with RawClient(fresh, head("/elsewhere")) as raw:
        assert raw.answer().status == 404
    eventually(lambda: samples(fresh)["market_data_connections{state=active}"] == 0)
    after = samples(fresh)

    assert before["market_data_connections{state=active}"] == 0
    assert during["market_data_connections{state=active}"] == 1
    assert (before["market_data_active_symbols"], during["market_data_active_symbols"]) == (0, 2)
    assert (before["market_data_subscriptions"], during["market_data_subscriptions"]) == (0, 2)
    assert during["market_data_connections_total"] == 1
    assert during["market_data_commands_total{action=ping,result=ok}"] == 1
    assert during["market_data_commands_total{action=subscribe,result=unknown_symbol}"] == 1
    assert after["market_data_connections_rejected_total{reason=not_found}"] == 1
    assert after["market_data_connections_closed_total{code=1000}"] == 1
    assert after["market_data_subscriptions"] == 0
    assert during["market_data_messages_sent_total"] >= 20
    assert during["market_data_bytes_sent_total"] >= 20 * 300
    assert during["market_data_feed_updates_total"] >= 19
    assert during["market_data_updates_encoded_total"] >= 19
    assert during["market_data_feed_age_seconds"] < 5
    for histogram in ("delivery_latency", "fanout_burst"):
        assert during[f"market_data_{histogram}_seconds_count"] >= 19
        assert 0 < during[f"market_data_{histogram}_seconds_sum"] < 10
    assert during["market_data_event_loop_lag_seconds"] < 5
    assert during["process_resident_memory_bytes"] > 1e7
    assert [value for name, value in during.items() if "build_info" in name] == [1]


def test_histograms_add_up(fresh):
    """Cumulative buckets end with the count. Fast deliveries are in a low bucket."""
    with Client(fresh, "AAPL") as client:
        for _ in range(10):
            client.receive()
    found = samples(fresh)
    name = "market_data_delivery_latency_seconds"
    buckets = [value for key, value in found.items() if key.startswith(f"{name}_bucket")]
    assert buckets == sorted(buckets)
    assert buckets[-1] == found[f"{name}_count"]
    assert found[f"{name}_bucket{{le=0.1}}"] > 0


def test_names_are_the_protocol_s_and_labels_are_few(fresh):
    """The protocol's names are present. No metric has a label for each symbol or connection."""
    with Client(fresh, "AAPL"):
        found = samples(fresh)
    for name in (
        "market_data_conflated_total",
        "market_data_feed_waits_total",
        "market_data_feed_bad_rows_total",
        "market_data_connections{state=draining}",
    ):
        assert found[name] == 0
    assert not any("AAPL" in name for name in found)
    # A server without Redis makes its own prices.
    assert found["market_data_leader"] == 1
    assert found["market_data_bus_messages_total"] == found["market_data_bus_gaps_total"] == 0


def test_nothing_is_logged_per_message(fresh):
    """Messages write no log lines, even at the level `debug`."""
    with Client(fresh, "AAPL") as client:
        client.receive()
        lines = len(fresh.own_lines())
        for _ in range(50):
            client.receive()
            client.send("ping")
    assert len(fresh.own_lines()) == lines


def test_every_metric_is_documented():
    """operations.md names exactly the metrics that there are."""
    lines = (ROOT / "docs" / "operations.md").read_text().splitlines()
    undocumented, unknown = unmatched(
        list(documented(lines, re.compile(r"market_data_\w+"))), declared()
    )
    assert not undocumented
    assert not unknown
    assert len(declared()) > 50


def test_every_metric_of_the_page_is_declared(fresh):
    """`declared` reads the source, so check it against the page of a server."""
    page = fresh.get("/metrics")[1]
    names = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in text_string_to_metric_families(page)
    }
    assert {name for name in names if not name.startswith("process_")} <= declared()
