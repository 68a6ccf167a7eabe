"""Output during a benchmark: progress bars on a terminal, and lines about results."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress

console = Console(stderr=True)
"""Standard error, as standard output has only the figures."""


@contextmanager
def progress(label: str, total: float) -> Iterator[Callable[[float], None]]:
    """Show a bar, and yield a function that moves it. Each call takes a millisecond to draw."""
    if not console.is_terminal:
        yield lambda _: None
        return
    with Progress(console=console, transient=True, auto_refresh=False) as bar:
        task = bar.add_task(label, total=total)
        yield lambda done: bar.update(task, completed=done, refresh=True)


def show(line: str) -> None:
    """Show one line about a result."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)
