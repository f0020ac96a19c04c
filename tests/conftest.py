"""Fixtures that all tests share."""

from collections.abc import Callable, Iterator

import pytest

from tests.postgres import TestServer, postgres_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[TestServer]:
    """The PostgreSQL server of this run."""
    with postgres_server() as server:
        yield server


@pytest.fixture
def database(postgres: TestServer) -> Iterator[Callable[..., str]]:
    """Make a database with the schemas of the named rooms: `database("queue")`. It goes with the test."""
    made: list[str] = []

    def make(*rooms: str) -> str:
        made.append(postgres.database(*rooms))
        return made[-1]

    yield make
    for url in made:
        postgres.drop(url)
