"""The embedded catalogue: one SQLite file, with one connection to read and one to write.

A write may have to wait for another process, a read never does. Each connection has its own thread.
"""

import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

import msgspec
import trio

from server.quotes.instrument import Instrument
from server.quotes.snapshot import Snapshot
from server.store.bars_sqlite import SqliteBars
from server.store.catalogue import Change, RowsRefused, StoreUnavailable, imported_rows
from server.store.migrations import pending
from server.store.rows import Rows
from server.store.search import CANDIDATES, Groups, search
from server.store.sql import COLUMNS, RECENTLY_WATCHED, SELECT_CHANGES
from server.store.stats import StoreStats
from server.store.thread import OwnThread
from server.store.writes_sqlite import (
    BEGIN_ANEW,
    LIST,
    NOT_INDEXED,
    SAVE,
    adjust,
    delist,
    fields_of,
    index_names,
    index_unindexed,
    insert,
    rename,
    transaction,
    write,
)

BUSY_TIMEOUT = 5.0
"""Seconds to wait while another process (a second server, an import) writes to the file."""

RETRY_INTERVAL = 0.02
"""Seconds between two tries to open a file that another process is creating."""

MARKS_END = 2**53 - 2
"""Marks of changes are below this. At this mark, the triggers of `0003_sound_marks` restart them."""

ERRORS = (sqlite3.Error, ValueError, OverflowError)
"""sqlite3's errors, and Python's own for values that sqlite3 cannot pass on."""

REFUSALS = (sqlite3.IntegrityError, sqlite3.DataError, ValueError, OverflowError)
"""Errors when a row is at fault."""

_KEY = "replace(replace(replace(replace(symbol, '-', ''), '/', ''), '.', ''), ' ', '')"
"""SQL for `search.symbol_key`; the index of migration 4 has the same words."""

_BY_SYMBOL = f"""
SELECT {COLUMNS} FROM (SELECT * FROM market_data WHERE NOT delisted
    AND symbol >= :prefix AND symbol < :prefix || char(1114111) ORDER BY symbol LIMIT :limit)
UNION ALL
SELECT {COLUMNS} FROM (SELECT * FROM market_data WHERE NOT delisted
    AND {_KEY} >= :key AND {_KEY} < :key || char(1114111) ORDER BY {_KEY} LIMIT :limit)
"""

_WITH_WORD = "id IN (SELECT id FROM name_words WHERE word IN (SELECT value FROM json_each(?)))"

_WITH_BEGINNING = """id IN (SELECT name_words.id FROM json_each(?) CROSS JOIN name_words
    WHERE word >= value AND word < value || char(1114111))"""
"""CROSS JOIN keeps SQLite from walking through all words for the sake of a few beginnings."""

T = TypeVar("T")


class BadText(bytes):
    """A text that is not UTF-8, which SQLite accepts from other programs."""


Key = str | bytes
"""A symbol as the table has it: text, BadText, or a blob. SQLite sorts blobs behind all texts."""


class Connected(NamedTuple):
    """A connection and the only thread that may use it."""

    thread: OwnThread
    connection: sqlite3.Connection


class SqliteCatalogue:
    """See `Catalogue`. Made by `open_sqlite`."""

    name = "sqlite"

    def __init__(
        self,
        reader: Connected,
        writer: Connected,
        shipped: Iterable[Instrument],
        stats: StoreStats,
        historian: Connected,
    ) -> None:
        """
        Arguments:
            shipped: the instruments that a new file is filled with, taken only then.
            historian: the connection that reads bars.
        """
        self._reader = reader
        self._writer = writer
        self.bars = SqliteBars(partial(self._run, historian), partial(self._run, writer))
        self._shipped = shipped
        self._stats = stats
        self._rows = Rows("sqlite", stats.invalid)

    def pool_use(self) -> None:
        return None

    async def migrate(self) -> list[str]:
        return await self._run(self._writer, "migrate", self._migrate)

    async def find(self, symbols: Sequence[str]) -> list[Snapshot]:
        # One parameter for all symbols, as SQLite limits their number.
        encoded = msgspec.json.encode(symbols).decode()
        among = "symbol IN (SELECT value FROM json_each(?))"
        return self._rows.snapshots(await self._select("find", among, encoded))

    async def page(self, after: str, limit: int) -> list[Snapshot]:
        first: Key = after
        return await self._rows.page(self._read_page, first, limit)

    async def search(self, query: str, limit: int) -> list[Snapshot]:
        if await self._read("unindexed", NOT_INDEXED, []):
            await self._run(self._writer, "index", index_names)
        return await search(self, query, limit)

    async def by_symbol(self, prefix: str, key: str, limit: int) -> list[Snapshot]:
        parameters = {"prefix": prefix, "key": key, "limit": limit}
        rows = await self._read("search", _BY_SYMBOL, parameters)
        return self._rows.snapshots(map(fields_of, rows))

    async def by_words(self, groups: Groups, *, whole: bool) -> list[Snapshot]:
        condition = " AND ".join([_WITH_WORD if whole else _WITH_BEGINNING] * len(groups))
        words = [msgspec.json.encode(group).decode() for group in groups]
        rows = await self._select("search", f"{condition} LIMIT {CANDIDATES}", *words)
        return self._rows.snapshots(rows)

    async def recently_watched(self, limit: int) -> list[str]:
        rows = await self._read("recent", RECENTLY_WATCHED + "?", [limit])
        return self._rows.symbols(symbol for (symbol,) in rows)

    async def upsert(
        self, instruments: Sequence[Instrument], done: Callable[[int], None], *, anew: bool = False
    ) -> None:
        statement, rows = BEGIN_ANEW if anew else LIST, imported_rows(instruments, anew=anew)
        cancelled = threading.Event()

        def unless_cancelled(written: int) -> None:
            if cancelled.is_set():
                # Nobody receives this error. It rolls the transaction back.
                raise StoreUnavailable("the import was cancelled")
            done(written)

        try:
            work = partial(write, statement, rows, [], unless_cancelled)
            await self._run(self._writer, "import", work)
        finally:
            cancelled.set()

    async def delist(self, symbols: Sequence[str]) -> list[str]:
        return await self._run(self._writer, "delist", partial(delist, symbols))

    async def adjust(self, symbol: str, change: Callable[[Snapshot], Snapshot]) -> Snapshot:
        work = partial(adjust, self._rows, symbol, change)
        return await self._run(self._writer, "adjust", work)

    async def rename(self, old: str, new: str) -> None:
        await self._run(self._writer, "rename", partial(rename, self._rows, old, new))

    async def changes(self, since: int | None) -> tuple[int, list[Change]]:
        mark, changes = await self._run(self._reader, "changes", partial(_changes, since))
        return mark, self._rows.changes(changes)

    async def save(self, snapshots: Sequence[Snapshot], watched: Sequence[str]) -> None:
        work = partial(write, SAVE, snapshots, watched, lambda _: None)
        await self._run(self._writer, "save", work)

    async def _read_page(self, after: Key, limit: int) -> list[tuple[Key, tuple[Any, ...]]]:
        blob = isinstance(after, bytes) and not isinstance(after, BadText)
        condition = f"symbol > {'?' if blob else 'CAST(? AS TEXT)'} ORDER BY symbol LIMIT ?"
        rows = await self._select("page", condition, after, limit)
        return [(row[0], row) for row in rows]

    async def _select(self, name: str, condition: str, *parameters: Any) -> list[tuple[Any, ...]]:
        query = f"SELECT {COLUMNS} FROM market_data WHERE NOT delisted AND {condition}"
        return [fields_of(row) for row in await self._read(name, query, parameters)]

    async def _read(
        self, name: str, query: str, parameters: Sequence[Any] | Mapping[str, Any]
    ) -> list[tuple[Any, ...]]:
        return await self._run(
            self._reader, name, lambda reader: reader.execute(query, parameters).fetchall()
        )

    async def _run(self, on: Connected, name: str, work: Callable[[sqlite3.Connection], T]) -> T:
        start = perf_counter()
        try:
            return await on.thread.run(partial(work, on.connection))
        except ERRORS as error:
            self._stats.db_errors += 1
            kind = RowsRefused if isinstance(error, REFUSALS) else StoreUnavailable
            raise kind(f"SQLite: {error}") from error
        finally:
            self._stats.queries[name].observe(perf_counter() - start)

    def _migrate(self, connection: sqlite3.Connection) -> list[str]:
        """Apply pending migrations. The transaction is the lock: a second process waits for it."""
        applied = []
        with transaction(connection):
            connection.execute(
                "CREATE TABLE IF NOT EXISTS schema_migrations "
                "(version integer PRIMARY KEY, name text NOT NULL)"
            )
            present = dict(connection.execute("SELECT version, name FROM schema_migrations"))
            for migration in pending("sqlite", present):
                for statement in _statements(migration.sql):
                    connection.execute(statement)
                note = "INSERT INTO schema_migrations VALUES (?, ?)"
                connection.execute(note, (migration.version, migration.name))
                applied.append(migration.name)
            if not present:
                insert(LIST, imported_rows(self._shipped, anew=False), connection)
            index_unindexed(connection)
        return applied


@asynccontextmanager
async def open_sqlite(
    path: Path, shipped: Iterable[Instrument], stats: StoreStats
) -> AsyncIterator[SqliteCatalogue]:
    """Open the file, and create it if there is none. Errors: StoreUnavailable."""
    async with _open(path) as writer, _open(path) as reader, _open(path) as historian:
        yield SqliteCatalogue(reader, writer, shipped, stats, historian)


@asynccontextmanager
async def _open(path: Path) -> AsyncIterator[Connected]:
    thread = OwnThread("sqlite")
    try:
        try:
            connection = await thread.run(partial(_connect, path))
        except (OSError, sqlite3.Error) as error:
            raise StoreUnavailable(f"cannot open {path}: {error}") from None
        try:
            yield Connected(thread, connection)
        finally:
            # The thread first ends its current call, which takes BUSY_TIMEOUT at most.
            with trio.CancelScope(shield=True):
                await thread.run(connection.close)
    finally:
        thread.close()


def _statements(sql: str) -> Iterator[str]:
    """Split a file into statements, each of which ends a line. A trigger is one statement."""
    statement = ""
    for line in sql.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _changes(since: int | None, connection: sqlite3.Connection) -> tuple[int, list[Change]]:
    """Return the next mark and the changes. SQLite has one writer at a time, so marks grow from one
    commit to the next. After a restart of the marks, all changes since then are new.
    """
    execute = connection.execute
    newest = f"SELECT coalesce(max(changed_in), 0) FROM market_data WHERE changed_in < {MARKS_END}"
    (last,) = execute(newest).fetchone()
    if since is None:
        rows = execute(SELECT_CHANGES + "delisted").fetchall()
    else:
        first = since if since <= last + 1 else 1
        rows = execute(SELECT_CHANGES + "changed_in BETWEEN ? AND ?", [first, last]).fetchall()
    return last + 1, [Change(symbol, bool(gone), *others) for symbol, gone, *others in rows]


def _connect(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None)
    connection.text_factory = _text
    _keep_wal(connection)
    # A crash of the machine may lose the last seconds of prices; full syncs would cost more.
    connection.execute("PRAGMA synchronous = NORMAL")
    # The first read: it fails if the file is not a database.
    connection.execute("SELECT count(*) FROM sqlite_master")
    return connection


def _keep_wal(connection: sqlite3.Connection) -> None:
    """Set the journal mode in which readers and the writer do not wait for each other.

    If two processes create a file, SQLite refuses one of them at once, despite the timeout. So retry.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(RETRY_INTERVAL)
        else:
            return


def _text(encoded: bytes) -> str | BadText:
    try:
        return encoded.decode()
    except UnicodeDecodeError:
        # An error raised here would fail the whole query for one row.
        return BadText(encoded)
