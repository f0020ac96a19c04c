"""A running room of identity for each test."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.contract.identity.rig import Rig, running


@pytest.fixture
def keyring(tmp_path: Path) -> str:
    """Where the master key of the installation is."""
    return str(tmp_path / "keyring")


@pytest.fixture
def url(database: Callable[..., str]) -> str:
    """The address of the database."""
    return database("identity")


@pytest.fixture
async def rig(url: str, keyring: str) -> AsyncIterator[Rig]:
    """One replica."""
    async with running(url, keyring) as rigs:
        yield rigs[0]
