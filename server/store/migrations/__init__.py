"""Numbered SQL files, one folder for each database; applied in order, each once, by the catalogues."""

from collections.abc import Mapping
from importlib.resources import files
from typing import Literal, NamedTuple

from server.store.catalogue import StoreMisconfigured


class Migration(NamedTuple):
    """`name` is the file's, without its ending."""

    version: int
    name: str
    sql: str


def migrations(database: Literal["postgres", "sqlite"]) -> list[Migration]:
    """All there are, by version."""
    found = []
    for file in files("server.store.migrations").joinpath(database).iterdir():
        name = file.name.removesuffix(".sql")
        found.append(Migration(int(name.partition("_")[0]), name, file.read_text("utf-8")))
    return sorted(found)


def pending(database: Literal["postgres", "sqlite"], applied: Mapping[int, str]) -> list[Migration]:
    """What is still to be applied, beside names by version. Errors: StoreMisconfigured."""
    known = migrations(database)
    newest = max(applied, default=0)
    if newest > known[-1].version:
        raise StoreMisconfigured(
            f"the {database} database was migrated to {applied[newest]} by a newer version of "
            f"quotestream; this one knows it up to {known[-1].name}"
        )
    return [migration for migration in known if migration.version not in applied]
