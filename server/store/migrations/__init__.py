"""Numbered SQL files, one folder for each database; applied in order, each once, by the catalogues."""

from importlib.resources import files
from typing import Literal, NamedTuple


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
