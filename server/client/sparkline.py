"""Draws a line of blocks whose heights are values."""

from collections.abc import Sequence

BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int) -> str:
    """Return blocks whose heights are the values, the last one of each part if they are too many."""
    if len(values) > width:
        values = [values[(part + 1) * len(values) // width - 1] for part in range(width)]
    low, high = min(values, default=0.0), max(values, default=0.0)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round((value - low) * scale)] for value in values)
