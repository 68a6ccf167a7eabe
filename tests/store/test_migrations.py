"""The databases' migrations belong together."""

import re
from typing import Literal

import pytest

from server.store.migrations import Migration, migrations, pending

ALONE = {
    (
        "postgres",
        "quote_columns",
    ): "a new SQLite file has these columns from 0001 on; Postgres takes "
    "over a table of another service",
    ("postgres", "search"): "SQLite had the column `words` from 0001 on",
    ("sqlite", "sound_marks"): "Postgres marks changes with its own transaction numbers, which no "
    "other program can set too high",
}
"""Migrations without a counterpart in the other database, and why."""


def by_name(database: Literal["postgres", "sqlite"]) -> dict[str, Migration]:
    """Return a database's migrations by name without the number."""
    return {each.name.partition("_")[2]: each for each in migrations(database)}


def test_each_migration_has_its_counterpart():
    """Both databases have a migration of each name, or ALONE gives the reason why not."""
    postgres, sqlite = by_name("postgres"), by_name("sqlite")
    single = {("postgres", name) for name in postgres.keys() - sqlite.keys()}
    single |= {("sqlite", name) for name in sqlite.keys() - postgres.keys()}
    assert single == ALONE.keys()


@pytest.mark.parametrize("database", ["postgres", "sqlite"])
def test_migrations_are_numbered_without_gaps(database):
    """The numbers give the order, so none is left out or used twice."""
    assert [each.version for each in migrations(database)] == list(
        range(1, len(migrations(database)) + 1)
    )
    assert all(re.fullmatch(r"\d{4}_[a-z_]+", each.name) for each in migrations(database))


def test_applied_migrations_are_not_pending():
    """A database at the newest version needs none, an empty one needs all."""
    every = migrations("sqlite")
    assert pending("sqlite", {each.version: each.name for each in every}) == []
    assert pending("sqlite", {}) == every
