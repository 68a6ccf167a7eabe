"""Numbered SQL files, one folder for each database. The catalogues apply each once, in order."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from server.store.catalogue import StoreMisconfigured


class Migration(NamedTuple):
    """One SQL file; `name` is the file's name without its ending."""

    version: int
    name: str
    sql: str


def migrations(database: Literal["postgres", "sqlite"]) -> list[Migration]:
    """Return all migrations of a database, ordered by version."""
    found = []
    for file in Path(__file__).with_name(database).iterdir():
        name = file.name.removesuffix(".sql")
        found.append(Migration(int(name.partition("_")[0]), name, file.read_text("utf-8")))
    return sorted(found)


def pending(database: Literal["postgres", "sqlite"], applied: Mapping[int, str]) -> list[Migration]:
    """Return the migrations that are not in `applied` (names by version).

    Errors: StoreMisconfigured if the database is at a newer version.
    """
    known = migrations(database)
    newest = max(applied, default=0)
    if newest > known[-1].version:
        raise StoreMisconfigured(
            f"the {database} database was migrated to {applied[newest]} by a newer version of "
            f"quotestream; this one knows it up to {known[-1].name}"
        )
    return [migration for migration in known if migration.version not in applied]
