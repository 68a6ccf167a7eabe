"""The collector looks at what is new, and now and then at everything."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from server.process import garbage


class Node:
    """An object that can be part of a cycle."""

    other: "Node"


@pytest.fixture(autouse=True)
def frozen() -> Iterator[None]:
    """Freeze as the server does at its start, and undo it."""
    callbacks = gc.callbacks[:]
    garbage.freeze_survivors()
    yield
    gc.callbacks[:] = callbacks
    gc.unfreeze()
    # As tests/conftest.py left it.
    gc.collect()
    gc.freeze()


def cycle() -> Node:
    """Return one of two objects that refer to each other, so that only a collection frees them."""
    one, two = Node(), Node()
    one.other, two.other = two, one
    return one


def test_survivors_are_looked_at_once() -> None:
    """The next full collection does not look at objects that survived one."""
    kept = [cycle() for _ in range(1000)]
    gc.collect()
    assert len(gc.get_objects(generation=2)) < len(kept)


def test_new_garbage_is_collected() -> None:
    """A cycle that was never frozen goes with the next collection."""
    node = weakref.ref(cycle())
    gc.collect()
    assert node() is None


def test_frozen_garbage_is_collected_once_an_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cycle that was frozen while it was in use is freed once everything is thawed."""
    kept = cycle()
    gc.collect()
    node = weakref.ref(kept)
    del kept
    gc.collect()
    assert node() is not None
    monkeypatch.setattr(garbage, "THAW_INTERVAL", 0.0)
    gc.callbacks[:] = [garbage.Freezer()]
    gc.collect()
    assert node() is None
