"""Fixtures that all tests share."""

from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from services.kit.tenancy import as_system
from tests.postgres import TestServer, postgres_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[TestServer]:
    """The PostgreSQL server of this run."""
    with postgres_server() as server:
        yield server


@pytest.fixture
async def of_the_system() -> AsyncIterator[None]:
    """Let a test, and what it calls, work for the system, as a loop of a service does."""
    with as_system():
        yield


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
