"""Databases and caches for tests: shared ones that stay whole, and single ones that a test may
break.
"""

from collections.abc import Iterator
from itertools import count

import pytest

from bench.services import Postgres, Redis

_numbers = count()


@pytest.fixture(scope="session")
def shared_postgres() -> Iterator[Postgres]:
    """Start the Postgres that all tests of this process share, and that none of them breaks."""
    with Postgres() as postgres:
        yield postgres


@pytest.fixture
def database(shared_postgres: Postgres) -> Iterator[str]:
    """Create an empty database in the shared Postgres, and return its name."""
    name = f"test{next(_numbers)}"
    shared_postgres.sql(f"CREATE DATABASE {name}")
    yield name
    shared_postgres.sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database_url(shared_postgres: Postgres, database: str) -> str:
    """Create an empty database in the shared Postgres, and return its address."""
    return shared_postgres.url(database)


@pytest.fixture
def redis() -> Iterator[Redis]:
    """Start a Redis that the test may break."""
    with Redis() as server:
        yield server


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    """Start a Postgres that the test may break."""
    with Postgres() as server:
        yield server
