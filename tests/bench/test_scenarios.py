"""Small runs of each scenario: it measures and prints its figures, or reports why it cannot."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.processes import SECRET, ServerProcess

pytestmark = pytest.mark.time_limit(600)

PROJECT = Path(__file__).parents[2]

Expected = Mapping[str, object]
"""Figures by name, of which each equals a `pytest.approx`."""

ATTEMPTS = 3
"""Runs of a scenario: one is invalid if a busy machine kept the generator from its pace."""

Constants = Mapping[str, object]
"""Values of the benchmark's constants for one run, by module and name."""

CALM_CACHE: Constants = {"bench.cache.RATES": {1: 60, 10: 20}, "bench.cache.MAX_LAG": 10.0}
"""A fifth of the scenario's rates, also for a machine that is seconds late."""

SHORT_SEARCH: Constants = {
    "bench.steps.FIRST_RATE": 128.0,
    "bench.steps.HIGHEST_RATE": 200.0,
    "bench.steps.HALVINGS": 1,
}
"""Begins a search near its end, as each step starts a server."""

SMALL_FLEET: Constants = {"bench.fleet.INSTANCES": 4}
"""Instances that two cores start in seconds."""


def bench(*arguments: str, constants: Constants | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does, or with other values of some `constants`."""
    how = ["-m", "bench"]
    if constants:
        changes = [
            f"import {name.rpartition('.')[0]}; {name} = {value!r}"
            for name, value in constants.items()
        ]
        run = [
            "import sys, bench.__main__",
            *changes,
            "sys.exit(bench.__main__.main(sys.argv[1:]))",
        ]
        how = ["-c", "\n".join(run)]
    command = [sys.executable, *how, *arguments]
    return subprocess.run(
        command, cwd=PROJECT, capture_output=True, text=True, timeout=480, check=False
    )


def measure(
    folder: Path,
    *arguments: str,
    expected: Expected | None = None,
    constants: Constants | None = None,
) -> dict[str, Any]:
    """Run a scenario that has to succeed, and return its figures' values by name.

    A run does not count if the machine was too busy for it: if the generator could not keep its pace,
    or if a figure that the pace determines is not as `expected`.
    """
    file = folder / "figures.json"
    for _ in range(ATTEMPTS):
        run = bench(*arguments, "--json", str(file), constants=constants)
        if "INVALID" in run.stdout + run.stderr:
            continue
        assert run.returncode == 0, run.stdout + run.stderr
        results = json.loads(file.read_text())["results"]
        figures = {name: each["value"] for name, each in results[0]["figures"].items()}
        if expected is None or all(figures[name] == each for name, each in expected.items()):
            return figures
    raise AssertionError(f"{ATTEMPTS} runs did not count: {run.stdout}{run.stderr}")


def test_hotpath_encodes_once():
    """An update is encoded once for any number of subscribers."""
    run = bench("hotpath", "--subscribers", "50", "--updates", "32")
    assert run.returncode == 0, run.stderr
    rows = [line.split() for line in run.stdout.splitlines()[-2:]]
    assert [(row[0], row[2]) for row in rows] == [("1", "1.00"), ("16", "1.00")]


def test_establish_tells_how_soon_clients_are_served(tmp_path):
    """Every connection gets its snapshot, as fast as possible and at a steady rate."""
    figures = measure(tmp_path, "establish", "--connections", "60", "--duration", "1")
    assert figures["handshakes"] > 60
    assert 0 < figures["first snapshot p50"] <= figures["first snapshot p99"] < 5


def test_portfolio_misses_nothing(tmp_path):
    """Updates arrive at the offered rate, and the result has the server's cost."""
    arguments = ["--connections", "40", "--duration", "4", "--rate", "2"]
    expected = {"delivered": pytest.approx(40 * 5 * 2, rel=0.2)}
    figures = measure(tmp_path, "portfolio", *arguments, expected=expected)
    assert figures["updates missed"] == 0
    assert figures["server CPU"] > 0
    assert figures["memory, whole"] > 20e6


@pytest.mark.parametrize(
    ("options", "most"),
    [
        (["--format", "compact"], 75),
        (["--format", "msgpack"], 55),
        (["--fields", "current_price"], 190),
        (["--format", "msgpack", "--fields", "current_price,volume"], 55),
    ],
)
def test_portfolio_tells_the_bytes_of_each_form(tmp_path, options, most):
    """No update is missed in any form, and an update has few bytes. In so short a run, pings and the
    day's high and low are a larger part.
    """
    arguments = ["--connections", "40", "--duration", "4", "--rate", "2"]
    figures = measure(tmp_path, "portfolio", *arguments, *options)
    assert figures["updates missed"] == 0
    assert 30 < figures["bytes an update"] < most
    assert figures["2,500 updates a second"] == pytest.approx(2500 * figures["bytes an update"])


def test_burst_is_compared_to_the_bare_loop(tmp_path):
    """Both are measured in one run; a page shows the distribution."""
    page = tmp_path / "page.html"
    arguments = ["--connections", "30", "--duration", "3", "--rate", "4", "--plot", str(page)]
    figures = measure(tmp_path, "burst", *arguments)
    assert figures["ratio to the bare loop"] == pytest.approx(
        figures["last client"] / figures["last client, bare loop"]
    )
    assert "<img alt='latency of burst' src='data:image/png;base64," in page.read_text()


def test_saturate_finds_a_highest_rate(tmp_path):
    """Few connections: the steps go up to the highest rate, for the server and for the bare loop."""
    arguments = ["--connections", "4", "--duration", "0.3"]
    figures = measure(tmp_path, "saturate", *arguments, constants=SHORT_SEARCH)
    for label in "1 symbol", "20 symbols":
        assert figures[f"{label}, frames"] > 0
        assert figures[f"{label}, to the bare loop"] > 0


def test_forms_are_compared_to_the_bare_loop(tmp_path):
    """The bare loop sends messages of the same form, as the server does."""
    arguments = ["--connections", "4", "--duration", "0.3", "--format", "msgpack"]
    figures = measure(tmp_path, "saturate", *arguments, constants=SHORT_SEARCH)
    assert figures["20 symbols, to the bare loop"] > 0
    arguments = ["--connections", "30", "--duration", "3", "--rate", "4", "--format", "compact"]
    assert measure(tmp_path, "burst", *arguments)["ratio to the bare loop"] > 0


def test_churn_leaves_no_memory_behind(tmp_path):
    """Visitors come and go at the offered rate, and none fails."""
    arguments = ["--connections", "20", "--duration", "3", "--rate", "30"]
    expected = {"opened and closed": pytest.approx(30, rel=0.1)}
    figures = measure(tmp_path, "churn", *arguments, expected=expected)
    assert figures["failed"] == figures["unanswered at the end"] == 0


def test_storm_brings_everybody_back(tmp_path):
    """All connections are cut at once, and all get a snapshot again."""
    figures = measure(tmp_path, "storm", "--connections", "100", "--duration", "2")
    assert figures["failed"] == 0
    assert figures["all have a snapshot after"] < 20


def test_slow_clients_are_conflated(tmp_path):
    """The slow clients fall behind, so the scenario measures something."""
    arguments = ["--connections", "20", "--duration", "4", "--rate", "20"]
    figures = measure(tmp_path, "slow", *arguments)
    assert figures["conflated"] > 0
    assert figures["p99 with to without"] > 0


def test_one_client_is_measured_once(tmp_path):
    """With one connection, both parts of a scenario would have the same figures."""
    figures = measure(tmp_path, "replay", "--connections", "1", "--duration", "0.2")
    assert "1 client, trades" in figures


def test_replay_loses_nothing(tmp_path):
    """A whole day is replayed at full speed without a loss."""
    figures = measure(tmp_path, "replay", "--connections", "3", "--duration", "2")
    assert figures["3 clients, trades"] > 100
    assert figures["3 clients, versions skipped"] == 0


def test_publish_measures_both_ways(tmp_path):
    """Every price reaches the clients, and each way has its rate, its cost and its latencies."""
    arguments = ["--connections", "10", "--duration", "1", "--rate", "3000"]
    figures = measure(tmp_path, "publish", *arguments)
    for way in "POST", "WebSocket":
        assert figures[f"{way}, prices"] > 0
        assert figures[f"{way}, server CPU a price"] > 0
        assert figures[f"{way}, intake to client p99"] > 0
        assert figures[f"{way}, intake to client p50"] <= figures[f"{way}, publisher to client p50"]


def test_publish_measures_only_its_own_server(tmp_path):
    """With --url the message says why not."""
    run = bench("publish", "--url", "ws://127.0.0.1:1/ws/quotes", "--token", "x")
    assert run.returncode == 2
    assert run.stderr == "bench: publish measures a server of its own: leave --url out\n"


def test_growth_tells_what_a_frame_and_an_update_cost(tmp_path):
    """The result has four parts and two ratios."""
    figures = measure(tmp_path, "growth", "--connections", "100", "--duration", "2", "--rate", "10")
    assert figures["ratio"] > 0
    assert figures["ratio with others"] > 0


def test_a_running_server_can_be_measured(tmp_path, server: ServerProcess):
    """With secret and HTTP port, a running server has the same figures as our own."""
    arguments = ["--connections", "4", "--duration", "2", "--url", server.quotes_url]
    arguments += ["--secret", SECRET, "--http", server.http_url]
    figures = measure(tmp_path, "portfolio", *arguments)
    assert figures["delivered"] > 0
    assert figures["memory, whole"] > 20e6
    assert figures["server peak memory"] is None


def test_peers_take_turns(tmp_path):
    """Installed servers are compared under the same load."""
    arguments = ["--connections", "4", "--duration", "0.5", "--only", "bare loop", "websockets"]
    figures = measure(tmp_path, "compare", *arguments, constants=SHORT_SEARCH)
    assert figures["websockets, 1 symbol"] > 0
    assert figures["websockets, 20 symbols, to the bare loop"] > 0


def test_a_picture_is_a_png(tmp_path):
    """A plot whose name ends with .png is a picture."""
    picture = tmp_path / "picture.png"
    measure(tmp_path, "portfolio", "--connections", "5", "--duration", "1", "--plot", str(picture))
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "arguments",
    [
        ["portfolio", "--url", "ws://127.0.0.1:1/ws/quotes", "--token", "x"],
        ["portfolio", "--url", "ws://127.0.0.1:1/ws/quotes"],
        ["portfolio", "--rate", "never"],
        ["portfolio", "--connections", "0"],
        ["portfolio", "--plot", "picture.gif"],
        ["compare", "--only", "nginx"],
        ["all"],
        ["fly"],
    ],
)
def test_what_cannot_be_measured_is_one_clear_line(arguments):
    """Without server or token, or with a bad value, the exit code is 2 and there is no traceback."""
    run = bench(*arguments)
    assert run.returncode == 2, run.stdout + run.stderr
    assert "Traceback" not in run.stderr
    assert run.stderr.splitlines()[-1]


def test_cache_tells_what_it_saves(tmp_path):
    """Hits and misses are measured, the load hits what was asked for before, queries are counted."""
    arguments = ["--symbols", "200", "--requests", "100", "--duration", "2"]
    for _ in range(ATTEMPTS):
        run = bench("cache", *arguments, constants=CALM_CACHE)
        rates = re.findall(r"hit rate ([\d.]+)%", run.stdout)
        # Entries expire meanwhile, so late requests hit less.
        if "INVALID" not in run.stderr and all(float(rate) > 90 for rate in rates):
            break
    assert "Traceback" not in run.stderr, run.stderr
    assert re.search(r"^hit, over HTTP +p50 .* the target is 10 ms$", run.stdout, re.MULTILINE)
    assert re.search(r"^miss, over HTTP +p50 .* the target is 50 ms$", run.stdout, re.MULTILINE)
    assert "MB for 200 symbols" in run.stdout
    assert len(rates) == 4
    assert all(float(rate) > 90 for rate in rates), run.stdout
    queries = re.findall(r"queries/s ([\d.]+) and ([\d.]+)", run.stdout)
    assert len(queries) == 4
    assert all(float(cached) < float(uncached) / 2 for cached, uncached in queries), run.stdout


def test_history_measures_a_year_from_each_database(tmp_path):
    """Each database gives a day of minutes and a year of days. A bar takes some bytes on the disk."""
    figures = measure(tmp_path, "history", "--symbols", "1", "--requests", "3")
    for database in ("Postgres", "SQLite"):
        assert 50 < figures[f"{database}, bytes a bar"] < 250
        for answer in ("a day of minutes", "a year of days"):
            assert (
                0 < figures[f"{database}, {answer}, p50"] <= figures[f"{database}, {answer}, p99"]
            )


def test_soak_tells_how_memory_grows(tmp_path):
    """It prints rows while it runs, and the growth at the end."""
    arguments = ["--connections", "40", "--duration", "6", "--rate", "5"]
    figures = measure(tmp_path, "soak", *arguments)
    assert figures["memory at the end"] > 20e6
    assert figures["descriptors, last minute"] >= 40
    assert figures["conflated"] > 0


def test_cluster_tells_how_long_a_leader_and_a_worker_are_missed(tmp_path):
    """A dead leader costs less than two leases. A dead worker costs its clients a reconnection."""
    arguments = ["--only", "takeover", "storm", "--kills", "1", "--connections", "40"]
    # The worker that is killed has some of the connections, and on a busy machine others wait for it.
    some = {"storm, connections lost": pytest.approx(20, abs=19)}
    figures = measure(
        tmp_path, "cluster", *arguments, expected=some, constants={"bench.cluster.OTHERS_TARGET": 5}
    )
    assert 0 < figures["takeover max"] < 6
    assert figures["storm, failed"] == 0
    assert figures["storm, the others' p99"] > 0


def test_cluster_tells_what_the_bus_costs(tmp_path):
    """All instances deliver the offered load and miss nothing. The result has Redis's share."""
    arguments = ["--only", "fleet", "--connections", "4", "--duration", "4"]
    expected = {"fleet, delivered": pytest.approx(4 * 4 * 5 * 0.25, rel=0.2)}
    figures = measure(tmp_path, "cluster", *arguments, expected=expected, constants=SMALL_FLEET)
    assert figures["fleet, missed"] == 0
    assert figures["fleet, Redis out"] > 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["burst", "--connections", "1", "--duration", "1"],
        ["soak", "--connections", "1", "--duration", "0.01"],
    ],
)
def test_run_that_is_too_short_says_so(arguments):
    """Nothing is made up: there is no division by zero, no `nan`, and no ratio of nothing."""
    run = bench(*arguments)
    assert "Traceback" not in run.stderr, run.stderr
    assert not re.search(r"\b(nan|inf)\b", run.stdout), run.stdout
    assert not re.search(r"│ *0\.00 × *│", run.stdout), run.stdout
    assert "too short to say" in run.stdout


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["saturate", "--connections", "1", "--duration", "0.05"], "too short to say"),
        (["compare", "--connections", "1", "--duration", "0.05"], "too short to say"),
        (["cache", "--symbols", "1", "--requests", "1", "--duration", "0.01"], "too short to say"),
        (["growth", "--duration", "1000000"], "shorten the run"),
        (["burst", "--duration", "1e9"], "at most 1,000,000"),
        (["burst", "--duration", "nan"], "not a number"),
        (["burst", "--duration", "inf"], "at most 1,000,000"),
        (["burst", "--duration", "-3"], "above 0"),
        (["burst", "--connections", "-1"], "from 1 to 1,000,000"),
        (["burst", "--connections", "99999999"], "from 1 to 1,000,000"),
        (["burst", "--connections", "x"], "not a whole number"),
        (["all", "--report", "x", "--scale", "0"], "above 0 and at most 1"),
        (["all", "--report", "x", "--scale", "2"], "above 0 and at most 1"),
        (["soak", "--hours", "99999"], "at most 278"),
    ],
)
def test_load_that_cannot_be_is_refused_by_name(arguments, word):
    """The last line says which value is wrong, and which values there are."""
    run = bench(*arguments)
    assert run.returncode == 2, run.stdout + run.stderr
    assert "Traceback" not in run.stderr
    assert word in run.stderr.splitlines()[-1]
