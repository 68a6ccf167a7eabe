"""The embedded catalogue's own thread."""

import sqlite3
import threading
from functools import partial

import pytest
import trio
import trio.testing

from server.store import thread as thread_module
from server.store.catalogue import StoreUnavailable
from server.store.catalogue_sqlite import open_sqlite
from server.store.stats import StoreStats
from server.store.thread import OwnThread
from tests.store.conftest import TIMEOUT, instrument


@pytest.fixture
def own():
    made = OwnThread("test")
    yield made
    made.close()


async def test_it_is_always_the_same(own):
    """Calls made at once run one after another, and errors come back."""
    idents: list[int] = []
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(own.run, lambda: idents.append(threading.get_ident()))
    assert len(idents) == 20
    assert len(set(idents)) == 1
    assert idents[0] != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        await own.run(lambda: 1 / 0)


async def test_cancelled_calls_hold_up_nobody(own):
    """A cancelled caller returns at once. A call that has begun ends, one that has not never runs."""
    release = threading.Event()
    done: list[str] = []

    def slow() -> None:
        release.wait(TIMEOUT)
        done.append("slow")

    with trio.fail_after(TIMEOUT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(own.run, slow)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(own.run, partial(done.append, "late"))
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert done == []
        release.set()
        await own.run(partial(done.append, "next"))
    assert done == ["slow", "next"]


async def test_line_is_bounded(own, monkeypatch):
    """One call too many is refused at once. When the queue is shorter, calls are accepted again."""
    monkeypatch.setattr(thread_module, "WAITING_CALLS", 2)
    release = threading.Event()
    with trio.fail_after(TIMEOUT):
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(own.run, partial(release.wait, TIMEOUT))
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(StoreUnavailable, match="too many"):
                await own.run(lambda: None)
            release.set()
        assert await own.run(lambda: 42) == 42


async def test_file_that_another_locks(tmp_path):
    """A caller that waits for a locked file can give up, and its write is not done. Then the catalogue
    can be closed.
    """
    path = tmp_path / "quotes.db"
    with trio.fail_after(TIMEOUT):
        async with open_sqlite(path, (), StoreStats()) as catalogue:
            await catalogue.migrate()
            other = sqlite3.connect(path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            with trio.move_on_after(0.1) as scope:
                await catalogue.upsert([instrument("AAPL")], lambda _: None)
            assert scope.cancelled_caught
            other.execute("ROLLBACK")
            assert await catalogue.find(["AAPL"]) == []
            other.close()
    assert not (tmp_path / "quotes.db-wal").exists()  # as the last connection leaves it
