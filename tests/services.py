"""Servers that the tests start once and share; each test gets a database of its own."""

from collections.abc import Iterator
from itertools import count

import pytest

from bench.services import Postgres, Redis

_numbers = count()


@pytest.fixture(scope="session")
def shared_postgres() -> Iterator[Postgres]:
    """A Postgres that nobody breaks."""
    with Postgres() as postgres:
        yield postgres


@pytest.fixture
def database(shared_postgres: Postgres) -> Iterator[str]:
    """The name of a new, empty database in it."""
    name = f"test{next(_numbers)}"
    shared_postgres.sql(f"CREATE DATABASE {name}")
    yield name
    shared_postgres.sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database_url(shared_postgres: Postgres, database: str) -> str:
    """The address of a new, empty database."""
    return shared_postgres.url(database)


@pytest.fixture
def redis() -> Iterator[Redis]:
    """A Redis that may be broken."""
    with Redis() as server:
        yield server


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    """A Postgres that may be broken."""
    with Postgres() as server:
        yield server
