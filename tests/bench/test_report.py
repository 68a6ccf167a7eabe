"""The report: values that a run cannot tell, the summary, the legend, and what pictures name."""

import json
import re

import pytest

from bench.figures import Figure, Result, Unit, ratio
from bench.latency import Latencies, Second
from bench.load import Window
from bench.report import LEGEND, print_result, summary, write_json, write_page


def result_of(*figures: Figure, scenario: str = "burst") -> Result:
    result = Result(scenario, "10 connections on one symbol, 3 s")
    result.add(*figures)
    return result


GOOD = Figure("last client", 0.2, Unit.SECONDS, must=0.5, aim=0.3)
BAD = Figure("to the bare loop", 7.0, Unit.RATIO, must=1.3, aim=1.1)


@pytest.mark.parametrize(
    ("value", "other", "expected"),
    [(6, 3, 2), (0, 3, 0), (6, 0, None), (6, 0.0, None), (None, 3, None), (6, None, None)],
)
def test_ratio_to_nothing_is_unknown(value, other, expected):
    """A run without a single update has nothing to compare with."""
    assert ratio(value, other) == expected


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_value_that_cannot_be_told_is_unknown_everywhere(value, capsys, tmp_path):
    """It has no verdict, and the table, the page and the JSON say so."""
    result = result_of(BAD._replace(value=value))
    print_result(result)
    write_page([result], tmp_path / "page.html")
    write_json([result], tmp_path / "figures.json")
    page = (tmp_path / "page.html").read_text()
    for text in (capsys.readouterr().out, page):
        assert "unknown" in text
        assert "too short to say" in text
        assert not re.search(r"\b(nan|inf)\b", text)
    [figure] = json.loads((tmp_path / "figures.json").read_text())["results"][0]["figures"].values()
    assert figure["value"] is None
    assert figure["verdict"] == ""


def test_latencies_of_nothing_have_no_percentiles():
    """A percentile of no value is not zero."""
    assert Latencies().percentiles() is None


@pytest.mark.parametrize(
    ("cpu_seconds", "frames", "cost"),
    [(0.5, 1000, 500), (0.5, 0, None), (0.0, 9, None), (None, 9, None)],
)
def test_frame_without_time_or_without_frames_has_no_cost(cpu_seconds, frames, cost):
    """The kernel counts CPU time in hundredths of a second: less than one is not zero."""
    assert Window(1.0, frames, 0, cpu_seconds, 0.1, None).cost == cost


def test_figure_is_given_once():
    """Two figures with one name would be one in the JSON."""
    with pytest.raises(AssertionError):
        result_of(GOOD, GOOD)


def test_summary_says_what_did_not_hold():
    """It names the missed targets by scenario, and results that do not count."""
    good, bad = result_of(GOOD, scenario="storm"), result_of(GOOD, BAD)
    assert summary([good]) == "All targets held, 1 in all."
    assert summary([good, bad]) == "All targets held but 1 of 3: burst (to the bare loop)."
    bad.wrong.append("3 updates missed")
    assert summary([bad, good]).endswith("burst does not count: 3 updates missed.")


def test_page_begins_with_the_summary_and_explains_verdicts(tmp_path):
    """A reader knows the outcome from the first lines, and each verdict from the legend."""
    write_page([result_of(GOOD, BAD)], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.index("All targets held but 1 of 2") < page.index("<table")
    for meaning in LEGEND.values():
        assert meaning in page
    assert page.index(LEGEND["missed"]) < page.index("to the bare loop<td>")


def test_picture_names_scenario_load_and_date(tmp_path, monkeypatch):
    """A picture that somebody passes on says what it shows."""
    titles: list[str] = []
    monkeypatch.setattr(
        "matplotlib.figure.Figure.suptitle", lambda _, text, **__: titles.append(text)
    )
    result = result_of(GOOD)
    latencies = Latencies()
    latencies.add(1000)
    result.histogram = latencies.histogram()
    result.timeline = [Second(0, 1, 0.001, 0.001)]
    write_page([result], tmp_path / "page.html")
    [title] = titles
    assert title.startswith("burst: 10 connections on one symbol, 3 s\n")
    assert f"{result.at:%Y-%m-%d %H:%M} UTC" in title
    assert "alt='latency of burst'" in (tmp_path / "page.html").read_text()
