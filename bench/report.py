"""Writes results: a table, JSON, pictures, and one page for a whole run."""

import base64
import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from io import BytesIO
from itertools import groupby
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from bench.figures import Figure, Result, written
from bench.latency import Second

if TYPE_CHECKING:  # matplotlib takes a second to import, and most runs draw nothing
    from matplotlib.figure import Figure as Picture

VERDICTS = {"aim": "green", "met": "yellow", "missed": "red", "": ""}

LEGEND = {
    "aim": "the value reaches its aim, the second bound",
    "met": "the value reaches what it must, the first or only bound",
    "missed": "the value does not reach what it must",
    "": "the figure has no bound, or its value is unknown",
}
"""The meaning of each verdict."""

UNKNOWN = "unknown: too short to say, or not readable without --http"

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 }
td, th { padding: .15rem .8rem; text-align: left }
table:not(.legend) td:nth-child(2) { text-align: right; white-space: nowrap }
tr:nth-child(even) { background: #8881 }
.aim { color: #087f5b } .met { color: #b08900 } .missed, .wrong { color: #c92a2a }
.summary { font-weight: 600 } img { max-width: 100% }
"""


PICTURE_COLUMNS = 120
"""Characters of a line above a picture."""


def machine() -> str:
    """Describe the machine."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return (
        f"{os.cpu_count()} cores, {model}, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}"
    )


def print_result(result: Result) -> None:
    """Print a table on standard output."""
    table = Table(
        title=f"{result.scenario}: {result.setting}",
        title_justify="left",
        caption=_note(result),
        caption_justify="left",
    )
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("must and aim")
    table.add_column("verdict")
    for figure in result.figures:
        verdict = figure.verdict
        colour = VERDICTS[verdict]
        text = f"[{colour}]{verdict}" if verdict else ""
        table.add_row(figure.name, written(figure.value, figure.unit), _bounds(figure), text)
    Console().print(table)


def summary(results: Sequence[Result]) -> str:
    """Say in one line whether all targets held, which did not, and which results do not count."""
    bounded = [each for result in results for each in result.figures if each.verdict]
    missed = [
        (result.scenario, each.name)
        for result in results
        for each in result.figures
        if each.verdict == "missed"
    ]
    names = [
        f"{scenario} ({', '.join(name for _, name in group)})"
        for scenario, group in groupby(missed, lambda each: each[0])
    ]
    count = len(bounded)
    but = f" but {len(missed)} of {count}: {', '.join(names)}" if missed else f", {count} in all"
    line = f"All targets held{but}." if bounded else "No figure has a target and a value."
    for result in results:
        if not result.good:
            line += f" {result.scenario} does not count: {_caption(result)}."
    return line


def write_json(results: Sequence[Result], path: Path) -> None:
    """Write the figures in base units: seconds, bytes, shares of a core."""
    document = {
        "machine": machine(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "summary": summary(results),
        "results": [result.as_json() for result in results],
    }
    path.write_text(json.dumps(document, indent=1) + "\n")


def write_plot(result: Result, path: Path) -> None:
    """Write a result's latency distribution and timeline, as a picture or a page."""
    if path.suffix == ".png":
        _draw(result).savefig(path, dpi=120)
    else:
        write_page([result], path)


def write_page(results: Sequence[Result], path: Path) -> None:
    """Write one page with all tables and pictures inside."""
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width'><title>quotestream benchmark</title>",
        f"<style>{STYLE}</style><h1>quotestream benchmark</h1>",
        f"<p class='summary'>{escape(summary(results))}</p>",
        f"<p>{escape(machine())}; {datetime.now(UTC):%Y-%m-%d %H:%M} UTC</p>",
        *_legend(),
    ]
    for result in results:
        parts += [f"<h2>{escape(result.scenario)}</h2><p>{escape(result.setting)}</p>"]
        parts += [f"<p class='wrong'>{escape(_caption(result))}</p>"] if not result.good else []
        parts += ["<table><tr><th>figure<th>value<th>must and aim<th>verdict"]
        parts += [_row(figure) for figure in result.figures]
        parts += ["</table>"]
        if result.histogram and result.histogram.get_total_count():
            image = BytesIO()
            _draw(result).savefig(image, format="png", dpi=110)
            data = base64.b64encode(image.getvalue()).decode()
            alt = f"latency of {escape(result.scenario)}"
            parts += [f"<img alt='{alt}' src='data:image/png;base64,{data}'>"]
    path.write_text("\n".join(parts) + "\n", encoding="utf-8")


def _legend() -> list[str]:
    rows = [f"<tr><td class='{each}'>{each or '(empty)'}<td>{LEGEND[each]}" for each in LEGEND]
    return [
        "<h2>Verdicts</h2><table class='legend'><tr><th>verdict<th>meaning",
        *rows,
        f"</table><p>{escape(UNKNOWN)}.</p>",
    ]


def _row(figure: Figure) -> str:
    cells = escape(figure.name), written(figure.value, figure.unit), escape(_bounds(figure))
    verdict = f"<td class='{figure.verdict}'>{figure.verdict}"
    return "<tr><td>" + "<td>".join(cells) + verdict


def _caption(result: Result) -> str:
    problems = [f"INVALID: the generator used {result.busy:.0%} of its core"] * (not result.valid)
    return "; ".join([*problems, *result.wrong])


def _note(result: Result) -> str:
    """Return what a reader of one table has to know, a line each."""
    unknown = [UNKNOWN] * any(each.value is None for each in result.figures)
    return "\n".join([*filter(None, [_caption(result)]), *unknown])


def _bounds(figure: Figure) -> str:
    sign = "≥" if figure.at_least else "≤"
    bounds = [b for b in (figure.must, figure.aim) if b is not None]
    return ", ".join(f"{sign} {written(bound, figure.unit)}" for bound in bounds)


def _draw(result: Result) -> "Picture":
    """Draw latency by percentile (the axis stretched towards 100 %), and its course if there is one."""
    from matplotlib.figure import Figure as Picture

    picture = Picture(figsize=(10, 4), layout="constrained")
    load = fill(f"{result.scenario}: {result.setting}", PICTURE_COLUMNS)
    picture.suptitle(f"{load}\n{result.at:%Y-%m-%d %H:%M} UTC, {machine()}", fontsize=9)
    axes = picture.subplots(1, 1 + bool(result.timeline), squeeze=False)[0]
    left = axes[0]
    if result.histogram and result.histogram.get_total_count():
        shares = [0, 50, 75, 90, 95, 99, 99.5, 99.9, 99.95, 99.99]
        values = [result.histogram.get_value_at_percentile(share) / 1000 for share in shares]
        left.plot([1 / (1 - share / 100) for share in shares], values, marker=".")
        left.set_xscale("log")
        left.set_xticks([1, 2, 10, 100, 1000, 10000], ["0", "50", "90", "99", "99.9", "99.99"])
        left.minorticks_off()
    left.set(xlabel="percentile", ylabel="ms", title="latency")
    if result.timeline:
        _draw_timeline(axes[1], result.timeline)
    for each in axes:
        each.grid(alpha=0.3)
    return picture


def _draw_timeline(axes: Any, timeline: Sequence[Second]) -> None:
    starts = [second.start for second in timeline]
    for name in ("p50", "max"):
        axes.plot(starts, [getattr(second, name) * 1000 for second in timeline], label=name)
    axes.set(xlabel="seconds", ylabel="ms", title="over time", ylim=(0, None))
    axes.legend()
