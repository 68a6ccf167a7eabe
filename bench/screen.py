"""What is shown while a benchmark runs: progress where somebody watches, lines elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress

console = Console(stderr=True)
"""Standard error: the figures on standard output stay clean."""


@contextmanager
def progress(label: str, total: float) -> Iterator[Callable[[float], None]]:
    """A bar that moves when the function given is called; drawing takes a millisecond each time."""
    if not console.is_terminal:
        yield lambda _: None
        return
    with Progress(console=console, transient=True, auto_refresh=False) as bar:
        task = bar.add_task(label, total=total)
        yield lambda done: bar.update(task, completed=done, refresh=True)


def show(line: str) -> None:
    """One line about what has just been measured."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)
