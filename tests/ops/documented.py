"""Reads names of metrics and settings from the documents."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_CODE = re.compile(r"`(…?\w+)(?:\{[a-z,]+\}|=[^`]*)?`")


def documented(lines: list[str], name: re.Pattern[str]) -> Iterator[set[str]]:
    """Yield the possible names of each code span that matches `name`.

    A span as in "`market_data_bus_gaps_total`, `…_bus_fenced_total`" continues some beginning of the
    name before it: it means any of the names that it may complete.
    """
    for line in lines:
        last = ""
        for span in _CODE.findall(line):
            if span.startswith("…_") and last:
                parts = last.split("_")
                yield {"_".join(parts[:end]) + span[1:] for end in range(1, len(parts))}
            elif name.fullmatch(span):
                last = span
                yield {span}


def unmatched(spans: list[set[str]], names: set[str]) -> tuple[set[str], list[set[str]]]:
    """Return the names that no span means, and the spans that mean none of `names`."""
    meant = set().union(*spans)
    return names - meant, [span for span in spans if not span & names]
